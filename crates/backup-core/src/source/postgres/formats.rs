//! Which tables go in COPY's binary format: about twice as fast, and able to dump values that text cannot.
//!
//! Binary only where its bytes mean the same to every server that may read them: types of the server itself, by object
//! id, which never changes. Never `reg*` types (they hold object ids), never types of users, whose object ids differ
//! from database to database. And only in UTF8 databases: binary text is converted by the session's encoding, which a
//! literal COPY statement cannot name.

use super::names::Encoding;
use super::rows::RowFormat;

/// Object ids of types whose binary form is the same everywhere, each with its array's.
const BINARY: [(i64, i64); 27] = [
    (16, 1000),   // bool
    (17, 1001),   // bytea
    (18, 1002),   // "char"
    (19, 1003),   // name
    (20, 1016),   // int8
    (21, 1005),   // int2
    (23, 1007),   // int4
    (25, 1009),   // text
    (114, 199),   // json
    (650, 651),   // cidr
    (700, 1021),  // float4
    (701, 1022),  // float8
    (774, 775),   // macaddr8
    (829, 1040),  // macaddr
    (869, 1041),  // inet
    (1042, 1014), // bpchar
    (1043, 1015), // varchar
    (1082, 1182), // date
    (1083, 1183), // time
    (1114, 1115), // timestamp
    (1184, 1185), // timestamptz
    (1186, 1187), // interval
    (1266, 1270), // timetz
    (1560, 1561), // bit
    (1562, 1563), // varbit
    (1700, 1231), // numeric
    (2950, 2951), // uuid
];

/// `jsonb` and its array; its binary form has carried a version since it exists.
const JSONB: (i64, i64) = (3802, 3807);

/// The format for a table with columns of these types.
pub(super) fn format(base_types: impl IntoIterator<Item = i64>, encoding: &Encoding) -> RowFormat {
    let same = |oid: i64| BINARY.iter().chain([&JSONB]).any(|(element, array)| oid == *element || oid == *array);
    if encoding.is_utf8() && base_types.into_iter().all(same) { RowFormat::Binary } else { RowFormat::Text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_column_that_is_not_on_the_list_makes_a_table_text() {
        let encoding = |name: &str| Encoding { name: name.to_owned() };
        let (regclass, users) = (2205, 16_999);
        assert_eq!(format([20, 1231, 3802], &encoding("UTF8")), RowFormat::Binary);
        assert_eq!(format([], &encoding("UTF8")), RowFormat::Binary);
        for odd in [regclass, users] {
            assert_eq!(format([20, odd], &encoding("UTF8")), RowFormat::Text);
        }
        assert_eq!(format([20], &encoding("LATIN1")), RowFormat::Text);
    }
}
