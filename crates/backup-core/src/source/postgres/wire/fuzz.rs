//! A server that says whatever a fuzzer says: the session ends, with little memory, however it lies.

use std::convert::Infallible;
use std::io::Cursor;

use super::{CopySink, INBOX_BYTES, Wire};
use crate::source::postgres::options::ConnectOptions;

#[derive(Default)]
struct Count(usize);

impl CopySink for Count {
    type Error = Infallible;

    fn piece(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }

    fn message_ends(&mut self) {}

    async fn drain(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

fn session(data: &[u8]) -> Wire {
    Wire::new(Box::new(tokio::io::join(Cursor::new(data.to_vec()), tokio::io::sink())))
}

/// The server's side of a session: while it logs in, answers, sends rows and takes them.
pub fn wire(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let to = ConnectOptions::new("postgres://u@127.0.0.1:1/d", None).expect("an address");
        let mut one = session(data);
        let _ = one.authenticate(&to).await;
        let mut two = session(data);
        // The second answer is read behind the first, as a session goes on.
        for _ in 0..4 {
            let _ = two.rows("SELECT 1").await;
        }
        let (mut three, mut count) = (session(data), Count::default());
        let _ = three.copy_out("COPY t TO STDOUT", &mut count).await;
        assert!(count.0 <= data.len(), "rows that nobody sent");
        let mut four = session(data);
        if four.copy_in("COPY t FROM STDIN").await.is_ok() {
            let _ = four.send_rows(b"1\n").await;
            let _ = four.copied_in().await;
        }
        for wire in [one, two, three, four] {
            assert!(wire.inbox.capacity() <= data.len() * 2 + 2 * INBOX_BYTES, "memory for what never came");
        }
    });
}
