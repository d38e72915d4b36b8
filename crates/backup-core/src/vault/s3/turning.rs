//! Tells a listing that goes on from one that goes round or has no end.
//!
//! Each page of a listing says whether there is another one, and a page is believed about that. So an endpoint that always
//! says yes would be asked for ever, and what it lists be held for ever. Nothing is made of the order of names, which some
//! kinds of buckets do not keep; but no name is given twice, so a page that begins as one before it did goes round.

use std::collections::HashSet;

use super::error::Refusal;

/// A listing may have so many pages for each that its names would fill: pages may be short, or empty where much was deleted.
const SHORT_PAGES: u64 = 5;

/// The pages of one listing so far.
#[derive(Debug)]
pub(super) struct Turns {
    most_names: u64,
    most_pages: u64,
    names: u64,
    pages: u64,
    begun: HashSet<String>,
}

impl Turns {
    /// Of a listing of at most `most_names` names, asked for in pages of `page_names`.
    pub(super) fn new(most_names: u64, page_names: u16) -> Self {
        let most_pages = most_names.div_ceil(u64::from(page_names.max(1))).saturating_mul(SHORT_PAGES);
        Self { most_names, most_pages, names: 0, pages: 0, begun: HashSet::new() }
    }

    /// One more page: what it begins with, if anything is on it, and how many names it has.
    pub(super) fn page(&mut self, first: Option<String>, names: usize) -> Result<(), Refusal> {
        self.names = self.names.saturating_add(names as u64);
        self.pages += 1;
        if self.names > self.most_names {
            return Err(Refusal::other(format!("listing has no end: more than {} names", self.most_names)));
        }
        if self.pages > self.most_pages {
            return Err(Refusal::other(format!("listing has no end: more than {} pages", self.most_pages)));
        }
        match first {
            Some(first) if self.begun.contains(&first) => {
                Err(Refusal::other(format!("listing goes round: a second page begins with `{first}`")))
            }
            Some(first) => {
                self.begun.insert(first);
                Ok(())
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_may_be_as_long_as_it_may_be() {
        let mut turns = Turns::new(10, 5);
        turns.page(Some("a".to_owned()), 5).unwrap();
        // Short and empty ones are no fault.
        turns.page(None, 0).unwrap();
        turns.page(None, 0).unwrap();
        turns.page(Some("b".to_owned()), 5).unwrap();
        assert_eq!(turns.page(Some("c".to_owned()), 1).unwrap_err().reason, "listing has no end: more than 10 names");
    }

    #[test]
    fn empty_pages_have_an_end() {
        let mut turns = Turns::new(10, 5);
        for _ in 0..10 {
            turns.page(None, 0).unwrap();
        }
        assert_eq!(turns.page(None, 0).unwrap_err().reason, "listing has no end: more than 10 pages");
    }

    #[test]
    fn a_listing_that_goes_round_is_seen_in_its_second_round_whatever_its_order() {
        let mut turns = Turns::new(1000, 5);
        for first in ["b", "a", "c"] {
            turns.page(Some(first.to_owned()), 1).unwrap();
        }
        assert_eq!(
            turns.page(Some("a".to_owned()), 1).unwrap_err().reason,
            "listing goes round: a second page begins with `a`"
        );
    }
}
