//! Finds and reads the TOML files that a command line names.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use mesh_core::hostfile;
use mesh_core::limits::{POLICY_APPLY_BYTES_MAX, POLICY_FILE_BYTES_MAX, POLICY_FILES_MAX};
use mesh_core::policy::PolicyFile;
use mesh_core::policy::text::{self, Diagnostic};

use crate::context::{is_stdin, read_stdin};
use crate::error::CliError;
use crate::limits::files::DEPTH_MAX;

/// One file, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Its name in the mesh: relative to the argument that led to it.
    pub(crate) name: String,
    /// Where it was found, for messages.
    pub(crate) path: PathBuf,
    /// What is in it.
    pub(crate) bytes: Vec<u8>,
}

/// Reads every file that `paths` name: files, directories with all `*.toml` below, and `-`.
///
/// Hidden files and directories are left out, and links to directories are not followed.
///
/// # Errors
/// [`CliError`] if something cannot be read, is too much, or two files have one name.
pub(crate) fn collect(paths: &[PathBuf]) -> Result<Vec<Found>, CliError> {
    let mut found = BTreeMap::new();
    for path in paths {
        if is_stdin(path) {
            let bytes = read_stdin(POLICY_FILE_BYTES_MAX as u64)?;
            let path = PathBuf::from("(standard input)");
            add(&mut found, Found { name: STDIN_NAME.to_owned(), path, bytes })?;
            continue;
        }
        let meta = std::fs::metadata(path).map_err(|why| CliError::file("read", path, why))?;
        if meta.is_dir() {
            walk(&mut found, path, "", 0)?;
        } else {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            add(&mut found, read(path, name)?)?;
        }
    }
    if found.is_empty() {
        let given: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        return Err(CliError::Refused(format!("no *.toml file in {}", given.join(", "))));
    }
    let bytes: usize = found.values().map(|one| one.bytes.len()).sum();
    if bytes > POLICY_APPLY_BYTES_MAX {
        let max = POLICY_APPLY_BYTES_MAX;
        return Err(CliError::Refused(format!("{bytes} bytes of files, expected at most {max}")));
    }
    Ok(found.into_values().collect())
}

fn walk(
    found: &mut BTreeMap<String, Found>, dir: &Path, prefix: &str, depth: usize,
) -> Result<(), CliError> {
    if depth > DEPTH_MAX {
        return Err(CliError::file("read", dir, format!("more than {DEPTH_MAX} levels deep")));
    }
    let wrong = |why| CliError::file("read", dir, why);
    let entries = std::fs::read_dir(dir).map_err(wrong)?;
    for entry in entries {
        let entry = entry.map_err(wrong)?;
        let (path, kind) = (entry.path(), entry.file_type().map_err(wrong)?);
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        let whole = format!("{prefix}{name}");
        if kind.is_dir() {
            walk(found, &path, &format!("{whole}/"), depth + 1)?;
        } else if name.ends_with(".toml") && path.is_file() {
            add(found, read(&path, whole)?)?;
        }
    }
    Ok(())
}

/// Reads one byte more than a file may have at most: the parser says what is wrong then.
fn read(path: &Path, name: String) -> Result<Found, CliError> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|why| CliError::file("read", path, why))?;
    let mut file = file.take(POLICY_FILE_BYTES_MAX as u64 + 1);
    file.read_to_end(&mut bytes).map_err(|why| CliError::file("read", path, why))?;
    Ok(Found { name, path: path.to_owned(), bytes })
}

fn add(found: &mut BTreeMap<String, Found>, file: Found) -> Result<(), CliError> {
    if found.len() >= POLICY_FILES_MAX {
        return Err(CliError::Refused(format!("more than {POLICY_FILES_MAX} files")));
    }
    if let Some(other) = found.get(&file.name) {
        let (one, two) = (other.path.display(), file.path.display());
        return Err(CliError::Refused(format!(
            "{one} and {two} would both be {:?} in the mesh\n  hint: give the directory above both",
            file.name
        )));
    }
    found.insert(file.name.clone(), file);
    Ok(())
}

/// What files hold, once checked.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    /// Policy files, parsed.
    pub(crate) policy: Vec<PolicyFile>,
    /// How many host files.
    pub(crate) host_files: usize,
    /// How many instances in them.
    pub(crate) instances: usize,
    /// What is wrong, in the order of files and lines.
    pub(crate) wrong: Vec<Diagnostic>,
}

/// Checks policy files, each alone and then together. Nothing is sent anywhere.
pub(crate) fn check_policy(files: &[Found]) -> Checked {
    let mut checked = Checked::default();
    files.iter().for_each(|file| parse_policy(file, &mut checked));
    together(files, &mut checked);
    checked
}

/// Checks policy and host files; what a file declares first says which it is.
pub(crate) fn check_any(files: &[Found]) -> Checked {
    let mut checked = Checked::default();
    for file in files {
        if !is_host_file(&file.bytes) {
            parse_policy(file, &mut checked);
            continue;
        }
        checked.host_files += 1;
        match hostfile::parse_bytes(&file.path.display().to_string(), &file.bytes) {
            Ok(instances) => checked.instances += instances.len(),
            Err(wrong) => checked.wrong.extend(wrong),
        }
    }
    together(files, &mut checked);
    checked
}

fn parse_policy(file: &Found, checked: &mut Checked) {
    match text::parse_bytes(&file.name, &file.bytes) {
        Ok(parsed) => checked.policy.push(parsed),
        Err(wrong) => checked.wrong.extend(wrong.into_iter().map(|one| at_path(one, file))),
    }
}

/// Checks that need all files; only once each is good, or every reference would seem wrong.
fn together(files: &[Found], checked: &mut Checked) {
    if !checked.wrong.is_empty() {
        return;
    }
    for one in text::check(&checked.policy) {
        let file = files.iter().find(|file| file.name == one.file);
        checked.wrong.push(match file {
            Some(file) => at_path(one, file),
            None => one,
        });
    }
}

/// The same with the path as it was found, so that editors and people can go there.
fn at_path(mut one: Diagnostic, file: &Found) -> Diagnostic {
    one.file = file.path.display().to_string();
    one
}

/// Whether the first table of a text is an instance. Works on broken TOML too.
fn is_host_file(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let header = text.lines().map(str::trim_start).find(|line| line.starts_with('['));
    let name = header.map(|line| line.trim_start_matches('[').trim_start());
    name.is_some_and(|name| name.starts_with("instance"))
}

/// The name of the file that comes by standard input.
pub(crate) const STDIN_NAME: &str = "stdin.toml";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use std::fs;

    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn directories_give_names_relative_to_the_argument() {
        let dir = tree(&[
            ("a.toml", ""),
            ("sub/b.toml", ""),
            ("notes.md", ""),
            (".git/c.toml", ""),
            (".d.toml", ""),
        ]);
        let names = |paths: &[PathBuf]| -> Vec<String> {
            collect(paths).unwrap().into_iter().map(|file| file.name).collect()
        };
        assert_eq!(names(&[dir.path().to_owned()]), ["a.toml", "sub/b.toml"]);
        assert_eq!(names(&[dir.path().join("sub/b.toml")]), ["b.toml"]);
    }

    #[test]
    fn missing_empty_and_doubled_files_are_refused() {
        let dir = tree(&[("one/a.toml", ""), ("two/a.toml", ""), ("none/x.md", "")]);
        let at = |name: &str| dir.path().join(name);
        let wrong = |paths: &[PathBuf]| collect(paths).unwrap_err().to_string();
        assert!(wrong(&[at("gone.toml")]).contains("No such file"));
        assert!(wrong(&[at("none")]).starts_with("no *.toml file in "));
        let doubled = wrong(&[at("one"), at("two")]);
        assert!(doubled.contains("would both be \"a.toml\""), "{doubled}");
    }

    #[test]
    fn errors_carry_the_path_line_and_column() {
        let dir = tree(&[("p/orders.toml", "[service.orders]\nprotocl = \"http\"\n")]);
        let checked = check_policy(&collect(&[dir.path().join("p")]).unwrap());
        let text = checked.wrong[0].to_string();
        let start = format!("{}:2:1: ", dir.path().join("p/orders.toml").display());
        assert!(text.starts_with(&start), "{text}");
        let error = CliError::Files(checked.wrong);
        assert_eq!(error.exit() as u8, 1);
        let text = error.text().unwrap();
        assert!(text.ends_with("error: 1 error in 1 file; nothing was changed"), "{text}");
    }

    #[test]
    fn a_file_too_large_is_told_like_other_errors() {
        let dir = tree(&[("big.toml", &"#".repeat(2 << 20))]);
        let checked = check_policy(&collect(&[dir.path().join("big.toml")]).unwrap());
        let text = checked.wrong[0].to_string();
        assert!(text.contains("big.toml:1:1: file has more than 1048576 bytes"), "{text}");
    }

    #[test]
    fn the_first_table_says_what_a_file_is() {
        let cases = [
            ("# x\n[instance.web]\n", true),
            ("[[instance.web.check]]\n", true),
            ("[ instance . web ]\n", true),
            ("[service.web]\n[instance.web]\n", false),
            ("[[allow.web]]", false),
            ("", false),
        ];
        for (text, want) in cases {
            assert_eq!(is_host_file(text.as_bytes()), want, "{text:?}");
        }
    }

    #[test]
    fn lint_reads_both_kinds() {
        let dir = tree(&[
            ("web.toml", "[instance.web]\nservice = \"web\"\nport = 80\n"),
            ("policy.toml", "[[allow.web]]\nfrom = [\"*\"]\n"),
        ]);
        let checked = check_any(&collect(&[dir.path().to_owned()]).unwrap());
        assert!(checked.wrong.is_empty(), "{:?}", checked.wrong);
        assert_eq!((checked.policy.len(), checked.host_files, checked.instances), (1, 1, 1));
    }
}
