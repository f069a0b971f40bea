//! The privileged tests by name: `FILE::TEST`, as the test program lists them.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::shell;

/// One file of tests, which is one module of the test program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CaseFile {
    pub(crate) name: String,
    /// Full names, `FILE::TEST`.
    pub(crate) cases: Vec<String>,
}

impl CaseFile {
    /// The arguments that make the test program run exactly these tests, one after the other.
    ///
    /// The output of tests that pass is shown too, because a test that skips prints the reason.
    pub(crate) fn arguments(&self) -> impl Iterator<Item = &str> {
        const FIXED: [&str; 4] = ["--test-threads=1", "--color=never", "--show-output", "--exact"];
        FIXED.into_iter().chain(self.cases.iter().map(String::as_str))
    }
}

/// All tests of the program, by file, in the order of the names.
pub(crate) fn list(program: &Path) -> Result<Vec<CaseFile>> {
    let text = shell::output(Command::new(program).args(["--list", "--format=terse"]))?;
    let files = parse(&text);
    if files.is_empty() {
        bail!("{} lists no tests", program.display());
    }
    Ok(files)
}

fn parse(text: &str) -> Vec<CaseFile> {
    let mut names: Vec<&str> = text.lines().filter_map(|line| line.strip_suffix(": test")).collect();
    names.sort_unstable();
    let mut files: Vec<CaseFile> = Vec::new();
    for name in names {
        let file = name.split("::").next().unwrap_or(name);
        match files.last_mut() {
            Some(last) if last.name == file => last.cases.push(name.to_owned()),
            _ => files.push(CaseFile { name: file.to_owned(), cases: vec![name.to_owned()] }),
        }
    }
    files
}

/// Keeps the files with `file` in their names, and in them the tests with `test` in theirs. Nothing
/// left is an error: a mistyped filter must not look like a success.
pub(crate) fn select(files: Vec<CaseFile>, file: Option<&str>, test: Option<&str>) -> Result<Vec<CaseFile>> {
    let mut chosen: Vec<CaseFile> =
        files.into_iter().filter(|of| file.is_none_or(|part| of.name.contains(part))).collect();
    for of in &mut chosen {
        let prefix = of.name.len() + "::".len();
        of.cases.retain(|case| test.is_none_or(|part| case.get(prefix..).is_some_and(|name| name.contains(part))));
    }
    chosen.retain(|of| !of.cases.is_empty());
    if chosen.is_empty() {
        bail!("no test has such a name");
    }
    Ok(chosen)
}

/// How many tests there are.
pub(crate) fn count(files: &[CaseFile]) -> usize {
    files.iter().map(|file| file.cases.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str =
        "zz_last::locks: test\nlife_filters::a: test\nfilters::b: test\nfilters::a: test\nx: benchmark\n";

    fn names(files: &[CaseFile]) -> Vec<&str> {
        files.iter().flat_map(|file| file.cases.iter().map(String::as_str)).collect()
    }

    #[test]
    fn tests_are_listed_by_file_in_the_order_of_the_names() {
        let files = parse(LIST);
        let by_file: Vec<_> = files.iter().map(|file| (file.name.as_str(), file.cases.len())).collect();
        assert_eq!(by_file, [("filters", 2), ("life_filters", 1), ("zz_last", 1)]);
        assert_eq!(count(&files), 4);
        assert!(files[0].arguments().collect::<Vec<_>>().ends_with(&["--exact", "filters::a", "filters::b"]));
    }

    #[test]
    fn filters_are_parts_of_the_names_of_files_and_of_tests() {
        let select = |file, test| select(parse(LIST), file, test);
        assert_eq!(names(&select(Some("filters"), Some("a")).unwrap()), ["filters::a", "life_filters::a"]);
        assert_eq!(names(&select(Some("life"), None).unwrap()), ["life_filters::a"]);
        assert_eq!(names(&select(None, Some("lock")).unwrap()), ["zz_last::locks"]);
        assert!(select(None, Some("filters")).is_err(), "the name of a file is not part of a test's name");
    }

    #[test]
    fn every_file_of_tests_is_a_module_of_the_program() {
        let dir = shell::root().join("tests/tests/privileged");
        let main = std::fs::read_to_string(dir.join("main.rs")).unwrap();
        for entry in std::fs::read_dir(dir).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let module = name.strip_suffix(".rs").unwrap_or(&name);
            assert!(module == "main" || main.contains(&format!("\nmod {module};\n")), "main.rs lacks `mod {module};`");
        }
    }
}
