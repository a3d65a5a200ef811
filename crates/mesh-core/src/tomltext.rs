//! What policy files and host files share: diagnostics, and a walk over TOML that collects every
//! error with its place instead of stopping at the first.

mod diagnostic;
mod meta;
mod syntax;
mod value;
mod walk;
mod write;

pub use diagnostic::Diagnostic;
pub(crate) use value::{Table, Value, format_duration};
pub(crate) use walk::{Keys, Walk};
pub(crate) use write::{inline, key, list, string};

/// Applies `read` to `bytes` as text, or says where they are not UTF-8.
///
/// # Errors
/// The diagnostics of `read`, or one that names the first byte that is not UTF-8.
pub(crate) fn from_bytes<T>(
    file: &str, bytes: &[u8], read: impl FnOnce(&str, &str) -> Result<T, Vec<Diagnostic>>,
) -> Result<T, Vec<Diagnostic>> {
    let start = String::from_utf8_lossy(bytes.get(..200).unwrap_or(bytes));
    walk::refuse_at_sight(file, &start, bytes.len())?;
    let wrong = match std::str::from_utf8(bytes) {
        Ok(text) => return read(file, text),
        Err(wrong) => wrong,
    };
    let at = wrong.valid_up_to();
    let byte = bytes.get(at).copied().unwrap_or_default();
    // Each broken byte becomes one replacement character; what stands before keeps its offset.
    let end = bytes.len().min(at.saturating_add(256));
    let text = String::from_utf8_lossy(bytes.get(..end).unwrap_or(bytes));
    let message = format!("byte 0x{byte:02x} is not UTF-8, expected a text file in UTF-8");
    let lines = diagnostic::Lines::new(file, &text);
    Err(vec![lines.diagnostic(at..at + 1, message, None)])
}

#[cfg(test)]
mod tests;
