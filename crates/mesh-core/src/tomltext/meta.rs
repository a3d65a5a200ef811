//! `meta = { version = "2" }`, of subsets and of instances.

use std::ops::Range;

use super::value::Value;
use super::walk::Walk;
use crate::limits::{META_BYTES_MAX, META_KEYS_MAX};
use crate::policy::Meta;

impl Walk<'_> {
    /// `value` as meta: at most [`META_KEYS_MAX`] pairs of texts without control characters.
    pub(crate) fn meta(&mut self, value: &Value<'_>) -> Meta {
        let expected = "a table such as { version = \"2\" }";
        let Some(table) = self.table("meta", value, expected) else { return Meta::new() };
        if table.entries.len() > META_KEYS_MAX {
            let found = table.entries.len();
            let message = format!("meta has {found} keys, expected at most {META_KEYS_MAX}");
            self.error(table.span.clone(), message);
        }
        let mut meta = Meta::new();
        for (key, span, value) in table.iter() {
            self.meta_text("meta key", key, span);
            let expected = "a string such as \"2\"";
            if let Some(text) = self.string(&format!("meta {key:?}"), value, expected) {
                self.meta_text("meta value", text, value.span());
                meta.insert(key.to_owned(), text.to_owned());
            }
        }
        meta
    }

    fn meta_text(&mut self, what: &str, text: &str, span: Range<usize>) {
        if text.is_empty() || text.len() > META_BYTES_MAX {
            let found = text.len();
            let message = format!("{what} has {found} bytes, expected 1 to {META_BYTES_MAX}");
            self.error(span, message);
        } else if text.contains(char::is_control) {
            self.error(span, format!("{what} is {text:?}, expected no control characters"));
        }
    }
}
