//! The files that a lab is built from.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use catena_model::resource::{self, Model, Source};

use crate::LabError;

/// The text of a network file, or of all files of a folder.
#[derive(Debug)]
pub(crate) struct Sources {
    texts: Vec<Source>,
    folder: PathBuf,
}

impl Sources {
    pub fn read(path: &Path) -> Result<Self, LabError> {
        let unreadable = |file: &Path| {
            let file = file.to_owned();
            move |source: io::Error| LabError::Unreadable { file, source }
        };
        let is_folder = fs::metadata(path).map_err(unreadable(path))?.is_dir();
        let files =
            if is_folder { yaml_files(path).map_err(unreadable(path))? } else { vec![path.to_owned()] };
        let folder = if is_folder { path } else { path.parent().unwrap_or(Path::new("")) };
        // "x.yaml" lies in "", which is no path.
        let folder = Path::new(".").join(folder);
        let read = |file: &PathBuf| {
            let text = fs::read_to_string(file).map_err(unreadable(file))?;
            Ok(Source::new(file.display().to_string(), text))
        };
        Ok(Self { texts: files.iter().map(read).collect::<Result<_, _>>()?, folder })
    }

    pub fn model(&self) -> Result<Model, LabError> {
        resource::load(&self.texts).map_err(LabError::Invalid)
    }

    /// The working directory of the hosts' commands.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where a command is written, as `file:line`, if it is found letter by letter: one that YAML had to escape is not.
    pub fn place_of(&self, command: &str) -> Option<String> {
        let first_line = command.lines().next().filter(|line| !line.trim().is_empty())?;
        self.texts.iter().find_map(|source| {
            let line = source.text.lines().position(|line| line.contains(first_line))?;
            Some(format!("{}:{}", source.name, line + 1))
        })
    }
}

fn yaml_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path()));
    let mut files = entries.collect::<io::Result<Vec<_>>>()?;
    files.retain(|file| file.extension().is_some_and(|ending| ending == "yaml" || ending == "yml"));
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_found_where_it_is_written() {
        let texts = vec![Source::new("net.yaml", "kind: Host\nspec:\n  setup:\n    - nft -f fw.nft\n")];
        let sources = Sources { texts, folder: ".".into() };
        assert_eq!(sources.place_of("nft -f fw.nft").as_deref(), Some("net.yaml:4"));
        assert_eq!(sources.place_of("nft -f web.nft"), None);
    }
}
