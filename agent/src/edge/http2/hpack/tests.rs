#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
use proptest::prelude::*;

use super::*;

type Fields = Vec<(String, String)>;

fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Fields, &'static str> {
    let mut fields = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    decoder.decode(block, |name, value| fields.push((text(name), text(value))))?;
    Ok(fields)
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn fields(pairs: &[(&str, &str)]) -> Fields {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// RFC 7541, appendices C.4 and C.6: Huffman's code, and tables across blocks.
#[test]
fn the_examples_of_the_rfc_are_read() {
    let get = |path: &'static str, scheme: &'static str| {
        vec![
            (":method", "GET"),
            (":scheme", scheme),
            (":path", path),
            (":authority", "www.example.com"),
        ]
    };
    let mut decoder = Decoder::new();
    let first = decode(&mut decoder, &hex("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff")).unwrap();
    assert_eq!(first, fields(&get("/", "http")));
    let second = decode(&mut decoder, &hex("8286 84be 5886 a8eb 1064 9cbf")).unwrap();
    let mut want = get("/", "http");
    want.push(("cache-control", "no-cache"));
    assert_eq!(second, fields(&want));
    let block = "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf";
    let third = decode(&mut decoder, &hex(block)).unwrap();
    let mut want = get("/index.html", "https");
    want.push(("custom-key", "custom-value"));
    assert_eq!(third, fields(&want));

    // C.5.1, in plain
    let block = "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 \
                 2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 \
                 6c65 2e63 6f6d";
    let answer = decode(&mut Decoder::new(), &hex(block)).unwrap();
    let want = [
        (":status", "302"),
        ("cache-control", "private"),
        ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
        ("location", "https://www.example.com"),
    ];
    assert_eq!(answer, fields(&want));
}

#[test]
fn b_hpack_blocks_that_cannot_be_are_refused() {
    let cases: &[(&str, &str)] = &[
        ("80", "index 0"),
        ("be", "an index behind the table"),
        ("ff", "an integer that is cut"),
        ("ff ff ff ff ff 0f", "an integer of 2^32"),
        ("ff 80 80 80 80 00", "an integer of many bytes"),
        ("7f ff ff ff ff ff ff ff ff ff 7f", "an integer over 64 bits"),
        ("41", "a name without value"),
        ("41 05 61", "a value that is cut"),
        ("40 0a 61", "a name that is cut"),
        ("00 ff ff ff ff 7f", "a string of 2^28 bytes"),
        ("41 84 ff ff ff ff", "the end of Huffman's code within a string"),
        ("41 81 00", "a padding of zeros"),
        ("41 82 1f ff", "a padding of more than 7 bits"),
        ("82 20", "a size behind a field"),
        ("20 20 20 82", "three sizes"),
        ("20", "a size and no field"),
        ("3f e2 1f 82", "a size over what was agreed"),
        ("3f e1 ff ff ff ff 7f 82", "a huge size"),
    ];
    for (block, what) in cases {
        assert!(decode(&mut Decoder::new(), &hex(block)).is_err(), "{what}");
    }
    for (block, what) in [("3f e1 1f 82", "the size that was agreed"), ("20 3f 00 82", "two sizes")]
    {
        assert_eq!(decode(&mut Decoder::new(), &hex(block)).unwrap().len(), 1, "{what}");
    }
}

/// Few bytes that decode to many: references to a large entry.
#[test]
fn b_hpack_the_table_stays_small() {
    let mut decoder = Decoder::new();
    let mut block = BytesMut::new();
    for name in 0..200_u8 {
        block.put_slice(&[0x40, 2, b'a' + name / 20, b'a' + name % 20]);
        put_string(&mut block, &[b'x'; 200]);
    }
    assert_eq!(decode(&mut decoder, &block).unwrap().len(), 200);
    // an entry is 234 bytes by RFC 7541 §4.1: 17 of them are in the table
    assert!(decode(&mut decoder, &[0x80 | 78]).is_ok());
    assert!(decode(&mut decoder, &[0x80 | 79]).is_err());
}

fn text() -> impl Strategy<Value = String> {
    "[ -~]{0,300}"
}

proptest! {
    #[test]
    fn what_is_put_is_read(
        given in proptest::collection::vec(("[a-z][a-z-]{0,40}", text(), any::<bool>()), 0..20),
    ) {
        let mut block = BytesMut::new();
        for (name, value, secret) in &given {
            put_field(&mut block, name, value.as_bytes(), *secret);
        }
        let read = decode(&mut Decoder::new(), &block).unwrap();
        let want: Fields = given.into_iter().map(|(name, value, _)| (name, value)).collect();
        prop_assert_eq!(read, want);
    }

    #[test]
    fn b_hpack_any_bytes_are_fields_or_an_error(
        blocks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..100), 0..8),
    ) {
        let mut decoder = Decoder::new();
        for block in blocks {
            let _ = decode(&mut decoder, &block);
        }
    }
}

#[test]
fn names_stand_where_the_static_table_has_them() {
    for index in 1..=61_u8 {
        let read = decode(&mut Decoder::new(), &[0x80 | index]).unwrap();
        let name = read[0].0.as_str();
        if let Some(known) = static_name(name) {
            assert_eq!(known, index, "{name}");
        }
    }
    for (name, known) in [("accept", 19), ("content-type", 31), ("www-authenticate", 61)] {
        assert_eq!(static_name(name), Some(known));
    }
}
