//! The options of the command: `--name value`, each at most once.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

/// Options given and not asked for yet.
#[derive(Debug, Default)]
pub struct Args(BTreeMap<String, String>);

impl Args {
    /// Reads `--name value` pairs.
    ///
    /// # Errors
    /// What is not of that form.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut found = BTreeMap::new();
        while let Some(word) = words.next() {
            let name = word.strip_prefix("--").ok_or(format!("{word:?} is no option"))?;
            let value = words.next().ok_or(format!("{word} has no value"))?;
            if found.insert(name.to_owned(), value).is_some() {
                return Err(format!("{word} is given twice"));
            }
        }
        Ok(Self(found))
    }

    /// The option's text, or what stands for it unset.
    pub fn text(&mut self, name: &str, unset: &str) -> String {
        self.0.remove(name).unwrap_or_else(|| unset.to_owned())
    }

    /// The option's number, or what stands for it unset.
    ///
    /// # Errors
    /// A value that does not read as one.
    pub fn number<T: FromStr>(&mut self, name: &str, unset: T) -> Result<T, String>
    where
        T::Err: Display,
    {
        let Some(text) = self.0.remove(name) else { return Ok(unset) };
        text.parse().map_err(|why| format!("--{name} {text:?}: {why}"))
    }

    /// Makes sure that nothing is left that nobody asked for.
    ///
    /// # Errors
    /// Options that the form does not have.
    pub fn end(self) -> Result<(), String> {
        match self.0.into_keys().next() {
            Some(name) => Err(format!("there is no option --{name}")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Args;

    fn parse(words: &[&str]) -> Result<Args, String> {
        Args::parse(words.iter().map(|word| (*word).to_owned()))
    }

    #[test]
    fn options_are_read_once_and_none_is_left() {
        let mut args = parse(&["--seed", "7", "--out", "x.json"]).unwrap();
        assert_eq!(args.number("seed", 1u64), Ok(7));
        assert_eq!(args.number("minutes", 20u64), Ok(20));
        assert_eq!(args.text("out", "y.json"), "x.json");
        assert_eq!(args.end(), Ok(()));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for words in [&["seed"][..], &["--seed"], &["--seed", "1", "--seed", "2"]] {
            assert!(parse(words).is_err(), "{words:?}");
        }
        assert!(parse(&["--seed", "x"]).unwrap().number("seed", 1u64).is_err());
        assert!(parse(&["--sed", "1"]).unwrap().end().is_err());
    }
}
