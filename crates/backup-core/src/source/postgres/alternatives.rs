//! Many names as one pattern, common beginnings written once.
//!
//! `pg_dump` matches each pattern against every relation, as a regular expression, before it locks anything. Two thousand
//! alternatives that begin alike are a slow one: of 9,000 tables that alone took most of the time between the snapshot and
//! `pg_dump`'s locks, and whatever is dropped in that time makes a capture start over.

/// A pattern that matches exactly these names: `"a"|"b"`, with beginnings in common `"t"("1"|"2")`. Inside double quotes
/// `pg_dump` takes every character literally.
pub(super) fn alternatives(names: &[&str]) -> String {
    let mut sorted = names.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let mut out = String::new();
    write(&sorted, &mut out);
    out
}

/// `names` are sorted and different.
fn write(names: &[&str], out: &mut String) {
    for (at, group) in names.chunk_by(|a, b| a.chars().next() == b.chars().next()).enumerate() {
        if at > 0 {
            out.push('|');
        }
        // Of sorted texts the first and the last have the least in common.
        let common = match group {
            [first, .., last] => common(first, last),
            _ => group.first().map_or(0, |name| name.len()),
        };
        if let Some(begin) = group.first().map(|name| &name[..common]).filter(|begin| !begin.is_empty()) {
            out.push('"');
            out.push_str(&begin.replace('"', "\"\""));
            out.push('"');
        }
        if group.len() > 1 {
            let rest: Vec<&str> = group.iter().map(|name| &name[common..]).collect();
            out.push('(');
            write(&rest, out);
            out.push(')');
        }
    }
}

/// Bytes of the whole characters with which both begin.
fn common(a: &str, b: &str) -> usize {
    a.chars().zip(b.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_beginnings_are_written_once() {
        assert_eq!(alternatives(&[]), "");
        assert_eq!(alternatives(&["b|\"", "a"]), "\"a\"|\"b|\"\"\"");
        assert_eq!(alternatives(&["t12", "t1", "t2", "u"]), "\"t\"(\"1\"(|\"2\")|\"2\")|\"u\"");
        assert_eq!(alternatives(&["é1", "è2", "\"a", "\"b"]), "\"\"\"\"(\"a\"|\"b\")|\"è2\"|\"é1\"");
    }

    /// What a pattern matches, read again by its own grammar.
    fn matched(pattern: &str) -> Vec<String> {
        fn one(rest: &mut &str) -> Vec<String> {
            let mut out = Vec::new();
            loop {
                let mut begin = String::new();
                while let Some(more) = rest.strip_prefix('"') {
                    let end = more.find('"').unwrap();
                    begin.push_str(&more[..end]);
                    *rest = &more[end + 1..];
                    if rest.starts_with('"') {
                        begin.push('"');
                    }
                }
                if let Some(more) = rest.strip_prefix('(') {
                    *rest = more;
                    out.extend(one(rest).into_iter().map(|end| format!("{begin}{end}")));
                    *rest = rest.strip_prefix(')').unwrap();
                } else {
                    out.push(begin);
                }
                match rest.strip_prefix('|') {
                    Some(more) => *rest = more,
                    None => return out,
                }
            }
        }
        let mut rest = pattern;
        let out = one(&mut rest);
        assert_eq!(rest, "");
        out
    }

    #[test]
    fn exactly_the_names_are_matched() {
        let mut names: Vec<String> =
            (0..3000).map(|n: u64| format!("t{}", n.wrapping_mul(2_654_435_761) % 100_000)).collect();
        names.extend(["", "t", "\"", "\"\"", "a\"b", "a\"", "é", "éa", "(", "|x", "t1"].map(str::to_owned));
        names.sort_unstable();
        names.dedup();
        let list: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut found = matched(&alternatives(&list));
        found.sort_unstable();
        assert_eq!(found, names);
    }
}
