//! Which tables go in COPY's binary format: about twice as fast, and able to dump values that text cannot.
//!
//! Binary only where its bytes mean the same to every server that may read them: types of the server itself, by object
//! id, which never changes. Never `reg*` types (they hold object ids), never types of users, whose object ids differ
//! from database to database. And only in UTF8 databases: binary text is converted by the session's encoding, which a
//! literal COPY statement cannot name.

use super::names::Encoding;
use super::rows::RowFormat;

/// Object ids of types whose binary form is the same everywhere. No arrays: a value that was changed in place keeps a
/// mark ("has NULLs") that is sent and, once loaded, is not there any more; what came back would differ in its bytes.
const BINARY: [i64; 28] = [
    16,   // bool
    17,   // bytea
    18,   // "char"
    19,   // name
    20,   // int8
    21,   // int2
    23,   // int4
    25,   // text
    114,  // json
    650,  // cidr
    700,  // float4
    701,  // float8
    774,  // macaddr8
    829,  // macaddr
    869,  // inet
    1042, // bpchar
    1043, // varchar
    1082, // date
    1083, // time
    1114, // timestamp
    1184, // timestamptz
    1186, // interval
    1266, // timetz
    1560, // bit
    1562, // varbit
    1700, // numeric
    2950, // uuid
    3802, // jsonb: its binary form has carried a version since it exists
];

/// The format for a table with columns of these types.
pub(super) fn format(base_types: impl IntoIterator<Item = i64>, encoding: &Encoding) -> RowFormat {
    let same = |oid: i64| BINARY.contains(&oid);
    if encoding.is_utf8() && base_types.into_iter().all(same) { RowFormat::Binary } else { RowFormat::Text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_column_that_is_not_on_the_list_makes_a_table_text() {
        let encoding = |name: &str| Encoding { name: name.to_owned() };
        let (regclass, users, texts) = (2205, 16_999, 1009);
        assert_eq!(format([20, 1700, 3802], &encoding("UTF8")), RowFormat::Binary);
        assert_eq!(format([], &encoding("UTF8")), RowFormat::Binary);
        for odd in [regclass, users, texts] {
            assert_eq!(format([20, odd], &encoding("UTF8")), RowFormat::Text);
        }
        assert_eq!(format([20], &encoding("LATIN1")), RowFormat::Text);
    }
}
