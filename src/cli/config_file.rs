//! Which routes file a command reads.

use crate::config::plan::Plan;
use crate::config::{self, Diagnostic, InvalidConfig};
use std::path::{Path, PathBuf};

/// The file in the current directory.
pub(super) const HERE: &str = "config/routes.yaml";
/// The file of an installed service.
const INSTALLED: &str = "/etc/watershed/routes.yaml";
/// The environment variable that names the file.
const VARIABLE: &str = "WATERSHED_CONFIG";

/// The argument that names the routes file.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct ConfigFile {
    /// The routes file [default: that of WATERSHED_CONFIG, config/routes.yaml, or
    /// /etc/watershed/routes.yaml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigFile {
    /// Whether the command line names it.
    pub(super) fn is_given(&self) -> bool {
        self.config.is_some()
    }

    /// Returns the first of: the argument, `WATERSHED_CONFIG`, and the usual places where a file is.
    pub(super) fn find(&self) -> Option<PathBuf> {
        let usual = || {
            let mut usual = [HERE, INSTALLED].iter().map(Path::new);
            usual.find(|path| path.exists()).map(Path::to_owned)
        };
        self.named().or_else(usual)
    }

    /// Returns where a new file goes: the argument, `WATERSHED_CONFIG`, or the current directory.
    pub(super) fn for_writing(&self) -> PathBuf {
        self.named().unwrap_or_else(|| HERE.into())
    }

    /// Returns the file, or the error that there is none.
    pub(super) fn path(&self) -> Result<PathBuf, InvalidConfig> {
        if self.config.is_none()
            && let Some(path) = self.named().filter(|path| !path.exists())
        {
            let found = format!("there is no such file, and {VARIABLE} names it");
            let allowed =
                format!("correct or unset {VARIABLE}, or name a routes file with -c FILE");
            let missing = Diagnostic::of_file(&path, found, &allowed);
            return Err(InvalidConfig::of(missing, &path));
        }
        self.find().ok_or_else(|| {
            let path = Path::new(HERE);
            let found = format!("there is no such file, and no {INSTALLED}");
            let allowed = "`watershed init` writes one; or name a routes file with -c FILE; `watershed demo` needs none";
            InvalidConfig::of(Diagnostic::of_file(path, found, allowed), path)
        })
    }

    /// Reads the plan of the file.
    pub(super) fn load(&self) -> Result<Plan, InvalidConfig> {
        config::load(&self.path()?)
    }

    fn named(&self) -> Option<PathBuf> {
        let by_variable = || std::env::var_os(VARIABLE).filter(|path| !path.is_empty());
        self.config
            .clone()
            .or_else(|| by_variable().map(PathBuf::from))
    }
}
