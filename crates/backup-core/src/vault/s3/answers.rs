//! How much of an answer is held.
//!
//! The SDK collects every answer that is not the body of an object before it looks at it: pages of listings, errors,
//! acknowledgements. It has no limit for that, and an endpoint (or whatever stands before it) that never comes to an end
//! would take all memory. Here each of them is cut off at [`MOST_BYTES`], and is an answer that failed. Bodies of objects
//! pass: who asked for one has a limit of its own, and looks at each piece.

use std::pin::Pin;
use std::task::{Context, Poll};

use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextMut;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::primitives::SdkBody;
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// A page has a thousand names. Whoever writes into the bucket chooses them, and must not make it too large to be read: of a
/// name's 1024 bytes each may be one that XML writes with six (`&quot;`, `&#x1f;`), and beside it there is a version's id of at most
/// 1024 bytes and some 600 more.
const MOST_BYTES: u64 = 8 << 20;

/// Cuts answers off.
#[derive(Debug)]
pub(super) struct Bounded;

#[aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint]
impl Intercept for Bounded {
    fn name(&self) -> &'static str {
        "Bounded"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let answer = context.response_mut();
        let is_object = config.load::<Metadata>().is_some_and(|asked| asked.name() == "GetObject");
        if is_object && answer.status().is_success() {
            return Ok(());
        }
        let body = std::mem::replace(answer.body_mut(), SdkBody::taken());
        *answer.body_mut() = SdkBody::from_body_1_x(Within { body, left: MOST_BYTES });
        Ok(())
    }
}

/// A body that may have so many bytes.
struct Within {
    body: SdkBody,
    left: u64,
}

impl Body for Within {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
            match self.left.checked_sub(bytes) {
                Some(left) => self.left = left,
                None => return Poll::Ready(Some(Err(format!("the answer has more than {MOST_BYTES} bytes").into()))),
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        Body::size_hint(&self.body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(mut body: Within) -> Vec<Result<u64, String>> {
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut seen = Vec::new();
        while let Poll::Ready(Some(frame)) = Pin::new(&mut body).poll_frame(&mut context) {
            let frame = frame.map(|frame| frame.into_data().unwrap().len() as u64).map_err(|error| error.to_string());
            let is_over = frame.is_err();
            seen.push(frame);
            if is_over {
                break;
            }
        }
        seen
    }

    #[test]
    fn a_page_of_the_longest_names_is_no_endless_answer() {
        const { assert!(1000 * (6 * 1024 + 1024 + 600) + 10_000 < MOST_BYTES) };
    }

    #[test]
    fn an_answer_ends_at_its_limit_and_not_before() {
        let of = |bytes: usize, left| Within { body: SdkBody::from(vec![b'x'; bytes]), left };
        assert_eq!(frames(of(10, 10)), [Ok(10)]);
        assert_eq!(frames(of(11, 10)), [Err("the answer has more than 8388608 bytes".to_owned())]);
        assert_eq!(frames(of(0, 0)), []);
    }
}
