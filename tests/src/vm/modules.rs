//! Kernel modules: found by name in an unpacked package, with what they depend on, in the order in which they load.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

/// Modules nest no deeper than this by far; deeper means a circle.
const DEPTH_MAX: usize = 32;

/// A module to be loaded.
#[derive(Clone, Debug)]
pub struct Module {
    /// Its name, with underscores.
    pub name: String,
    /// The object that the kernel takes.
    pub content: Vec<u8>,
}

/// The modules below a folder, by name.
#[derive(Debug)]
pub struct Modules {
    files: HashMap<String, PathBuf>,
    built_in: Vec<String>,
}

impl Modules {
    /// Looks at `/lib/modules/RELEASE` of a package.
    pub fn new(folder: &Path) -> Result<Self> {
        let mut modules = Self { files: HashMap::new(), built_in: Vec::new() };
        modules.collect(&folder.join("kernel"))?;
        let list = folder.join("modules.builtin");
        let list = fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
        modules.built_in = list.lines().filter_map(|line| name(Path::new(line))).collect();
        Ok(modules)
    }

    /// These modules and all that they need, each after what it depends on; what is built in is left out.
    pub fn in_order(&self, wanted: &[&str]) -> Result<Vec<Module>> {
        let mut order = Vec::new();
        for module in wanted {
            self.add(&module.replace('-', "_"), &mut order, 0)?;
        }
        Ok(order)
    }

    fn add(&self, module: &str, order: &mut Vec<Module>, depth: usize) -> Result<()> {
        if depth > DEPTH_MAX {
            bail!("module {module} depends on itself");
        }
        if order.iter().any(|known| known.name == module) || self.built_in.iter().any(|known| known == module) {
            return Ok(());
        }
        let file = self.files.get(module).with_context(|| format!("this kernel has no module {module}"))?;
        let content = read(file)?;
        for needed in depends(&content) {
            self.add(&needed, order, depth + 1)?;
        }
        order.push(Module { name: module.to_owned(), content });
        Ok(())
    }

    fn collect(&mut self, folder: &Path) -> Result<()> {
        for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                self.collect(&path)?;
            } else if let Some(name) = name(&path) {
                self.files.insert(name, path);
            }
        }
        Ok(())
    }
}

/// `veth` of `…/veth.ko` and `…/veth.ko.xz`.
fn name(path: &Path) -> Option<String> {
    let (name, end) = path.file_name()?.to_str()?.split_once('.')?;
    end.starts_with("ko").then(|| name.replace('-', "_"))
}

fn read(file: &Path) -> Result<Vec<u8>> {
    if file.extension().is_some_and(|end| end == "ko") {
        return fs::read(file).with_context(|| format!("cannot read {}", file.display()));
    }
    let output = Command::new("xz").args(["--decompress", "--stdout"]).arg(file).output();
    let output = output.context("cannot run `xz`; `cargo xtask setup --vm` installs what guests need")?;
    if !output.status.success() {
        bail!("cannot unpack {}: {}", file.display(), String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(output.stdout)
}

/// The names after `depends=` in the module's information, strings that end with NUL.
fn depends(content: &[u8]) -> Vec<String> {
    let key = b"\0depends=";
    let Some(at) = content.windows(key.len()).position(|bytes| bytes == key) else {
        return Vec::new();
    };
    let list = content[at + key.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let list = String::from_utf8_lossy(list);
    list.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fake(depends: &str) -> Vec<u8> {
        format!("\x7fELF\0license=GPL\0depends={depends}\0name=x\0").into_bytes()
    }

    #[test]
    fn modules_come_after_what_they_depend_on() {
        let folder = tempfile::tempdir().unwrap();
        let kernel = folder.path().join("kernel/net");
        fs::create_dir_all(&kernel).unwrap();
        for (file, depends) in [("a-b.ko", "c,built"), ("c.ko", "d"), ("d.ko", ""), ("round.ko", "round")] {
            fs::write(kernel.join(file), fake(depends)).unwrap();
        }
        fs::write(folder.path().join("modules.builtin"), "kernel/lib/built.ko\n").unwrap();
        let modules = Modules::new(folder.path()).unwrap();
        let names = |wanted: &[&str]| {
            let order = modules.in_order(wanted).map_err(|error| error.to_string())?;
            Ok::<_, String>(order.into_iter().map(|m| m.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&["a_b", "d", "built"]).unwrap(), ["d", "c", "a_b"]);
        assert!(names(&["none"]).unwrap_err().contains("no module none"));
        assert!(names(&["round"]).unwrap_err().contains("itself"));
    }
}
