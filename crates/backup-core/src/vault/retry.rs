//! Retries with a total deadline.
