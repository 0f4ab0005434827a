//! The files that `-f` names.

use std::io::Read;
use std::path::{Path, PathBuf};

use catena_api::types::SourceText;

use crate::error::CliError;

/// Reads files, all `.yaml` and `.yml` files of folders (not of folders in them), and standard input for `-`.
pub fn read(paths: &[PathBuf]) -> Result<Vec<SourceText>, CliError> {
    let mut sources = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map_err(|source| unreadable(path, source))?;
            sources.push(SourceText { name: "standard input".to_owned(), text });
        } else if path.is_dir() {
            for file in yaml_files(path)? {
                sources.push(read_file(&file)?);
            }
        } else {
            sources.push(read_file(path)?);
        }
    }
    Ok(sources)
}

fn read_file(path: &Path) -> Result<SourceText, CliError> {
    let text = std::fs::read_to_string(path).map_err(|source| unreadable(path, source))?;
    Ok(SourceText { name: path.display().to_string(), text })
}

/// In the order of their names, so that every run says the same.
fn yaml_files(folder: &Path) -> Result<Vec<PathBuf>, CliError> {
    let entries = std::fs::read_dir(folder).map_err(|source| unreadable(folder, source))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|source| unreadable(folder, source))?.path();
        let yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        if yaml && path.is_file() {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(CliError::EmptyFolder(folder.to_owned()));
    }
    files.sort();
    Ok(files)
}

fn unreadable(path: &Path, source: std::io::Error) -> CliError {
    CliError::Read { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_gives_its_yaml_files_in_order() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.yaml", "a.yml", "notes.txt"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        let texts: Vec<String> =
            read(&[folder.path().to_owned()]).unwrap().into_iter().map(|source| source.text).collect();
        assert_eq!(texts, ["a.yml", "b.yaml"]);
    }

    #[test]
    fn an_empty_folder_is_a_mistake() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(read(&[folder.path().to_owned()]), Err(CliError::EmptyFolder(_))));
        assert!(matches!(read(&["/no/such/file.yaml".into()]), Err(CliError::Read { .. })));
    }
}
