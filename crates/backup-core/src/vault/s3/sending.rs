//! Hands a body to the connection piece by piece, so that somebody sees it move.
//!
//! Given as a whole, a body is taken in one go, and a line that stands still looks like one that is busy. The exchange is
//! made after the request was signed, over the very bytes that were signed, so signature and checksum stay what they are.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::primitives::SdkBody;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::vault::retry::Progress;

/// Large enough to cost nothing, small enough to be seen: a tenth of a second at 10 Mbit/s, a second at the slowest rate.
const PIECE_BYTES: usize = 64 << 10;

/// Tells of the body of one request.
pub(super) struct Sending {
    body: Bytes,
    progress: Arc<Progress>,
}

impl fmt::Debug for Sending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sending").field("bytes", &self.body.len()).finish_non_exhaustive()
    }
}

impl Sending {
    pub(super) fn new(body: Bytes, progress: Arc<Progress>) -> Self {
        progress.expect(body.len() as u64);
        Self { body, progress }
    }
}

#[aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint]
impl Intercept for Sending {
    fn name(&self) -> &'static str {
        "Sending"
    }

    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let request = context.request_mut();
        if request.body().bytes() != Some(&self.body[..]) {
            // Framed by the SDK in a way of its own: then only its end is seen.
            self.progress.sent(self.body.len() as u64);
            return Ok(());
        }
        let pieces = Pieces { left: self.body.clone(), progress: Arc::clone(&self.progress) };
        *request.body_mut() = SdkBody::from_body_1_x(pieces);
        Ok(())
    }
}

struct Pieces {
    left: Bytes,
    progress: Arc<Progress>,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        let piece_bytes = self.left.len().min(PIECE_BYTES);
        let piece = self.left.split_to(piece_bytes);
        self.progress.sent(piece.len() as u64);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len() as u64)
    }
}
