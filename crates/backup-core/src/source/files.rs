//! Directories and files as tar segments.
