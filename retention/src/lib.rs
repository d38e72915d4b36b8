//! What to keep and why.
//!
//! [`plan()`] takes a [`Policy`], what is known of a source's [`History`] in one vault, and two clocks, and says of every
//! snapshot whether it is kept or expired and of every generation whether it may be deleted, each with reasons. It
//! is arithmetic and nothing else: no file, no network, no clock, no order of input matters. It deletes nothing;
//! it is the caller who acts on a plan, in the two runs that the protocol asks for.
//!
//! Each rule errs to one side. What is not understood (a snapshot listed but not read, two with one id, a clock that
//! can't be right, a hole in the history) keeps everything, and the plan says which of these it was:
//!
//! - ages count back from the newest snapshot that the vault holds whole, never from the clock, so an outage makes
//!   nothing older;
//! - a snapshot's place in time is the *earlier* of its data instant and its store instant, but its age is that of
//!   the *later* one: a clock that was wrong on one side can only make things live longer;
//! - a damaged snapshot counts for no rule, so another one takes its place, and is not expired for being damaged;
//! - a gap, a chain that does not close or clocks that disagree freeze all expiry ([`Freeze`]) until they are gone or
//!   an operator has accepted them;
//! - a generation goes as a whole or not at all.

pub mod history;
pub mod plan;
pub mod policy;
pub mod span;

pub use history::{Clocks, Generation, History, Stamp};
pub use plan::{Freeze, GenerationDecision, GenerationReason, Plan, Reason, SnapshotDecision, plan};
pub use policy::{Life, Policy, PolicyError, Tier, maximum_life, refused_tier};
pub use span::{Span, SpanError};
