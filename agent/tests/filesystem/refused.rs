//! Starts that must not succeed, and what they say.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use baton::resources::{Health, Resource as _};
use rustix::mount::{UnmountFlags, unmount};

use crate::lab::{Lab, context, isolated, run, text, until};

/// Asserts that a start is refused in these words.
fn refused(lab: &Lab, spec: &baton::config::kinds::Filesystem, words: &[&str]) {
    let error = lab.refused(&mut lab.within(spec, Duration::from_secs(5)));
    for words in words {
        assert!(error.contains(words), "no \"{words}\" in {error}");
    }
}

#[test]
fn a_device_that_is_mounted_elsewhere_is_refused_with_where() {
    isolated(|lab| {
        let device = lab.device(Some("ext4"));
        let other = lab.path("other");
        fs::create_dir(&other).unwrap();
        let spec = lab.spec(&device, "ext4");
        run("mount", &[text(&device), text(&other)]);
        let at = format!("it is mounted already, on {}", other.display());
        refused(lab, &spec, &[text(&device), &at, "umount"]);
        // Nor does a stop take it away: it is not Baton's.
        let error = lab.settle(lab.resource(&spec).stop(&context())).unwrap_err().to_string();
        assert!(
            error.contains(&format!("it is mounted on {}; it was not mounted by Baton", other.display())),
            "{error}"
        );
        run("umount", &[text(&other)]);
        // In another mount namespace.
        let script = format!("mount {} {} && echo ready && exec sleep 600", device.display(), other.display());
        let pid = lab.holder("unshare", &["--mount", "sh", "-c", &script]);
        refused(lab, &spec, &[&at, &format!("(process {pid})"), "in the mount namespace of "]);
        let error = lab.settle(lab.resource(&spec).stop(&context())).unwrap_err().to_string();
        assert!(error.contains("in the mount namespace of "), "{error}");
    });
}

#[test]
fn a_lazy_unmount_is_no_release() {
    isolated(|lab| {
        let device = lab.device(Some("ext4"));
        let spec = lab.spec(&device, "ext4");
        let mut resource = lab.within(&spec, Duration::from_secs(3));
        lab.start(&mut resource);
        let file = spec.mount.join("file");
        let held = fs::File::create(&file).unwrap();
        unmount(&spec.mount, UnmountFlags::DETACH).unwrap();
        let me = format!("(process {}: open files)", std::process::id());
        let error = lab.settle(resource.stop(&context())).unwrap_err().to_string();
        assert!(error.contains("it is in use by") && error.contains(&me), "{error}");
        refused(lab, &spec, &["the kernel has it claimed", &me]);
        drop(held);
        until(|| lab.settle(resource.stop(&context())).is_ok(), "the device is claimed still");
        lab.start(&mut resource);
        lab.stop(&mut resource);
    });
}

#[test]
fn the_folder_must_be_one_and_free() {
    isolated(|lab| {
        let device = lab.device(Some("ext4"));
        let mut spec = lab.spec(&device, "ext4");
        spec.create = false;
        refused(lab, &spec, &["there is no such folder", "mkdir -p", "create = true"]);
        fs::write(&spec.mount, "").unwrap();
        refused(lab, &spec, &["it is no folder"]);
        fs::remove_file(&spec.mount).unwrap();
        let other = lab.path("other");
        fs::create_dir(&other).unwrap();
        std::os::unix::fs::symlink(&other, &spec.mount).unwrap();
        refused(lab, &spec, &["it is a symbolic link"]);
        fs::remove_file(&spec.mount).unwrap();
        fs::create_dir(&spec.mount).unwrap();
        run("mount", &["-t", "tmpfs", "something", text(&spec.mount)]);
        refused(lab, &spec, &["something (tmpfs) is mounted there", "umount"]);
        let mut resource = lab.within(&spec, Duration::from_secs(5));
        let Ok(Health::Failed(why)) = lab.settle(resource.probe()) else { panic!("a tmpfs is taken for ours") };
        assert!(why.contains("something (tmpfs) is mounted on"), "{why}");
        // It is not ours: there is nothing to stop, and it stays.
        lab.settle(resource.stop(&context())).unwrap();
        run("umount", &[text(&spec.mount)]);
        // Mounted over what is ours: neither well nor ours to take away.
        lab.start(&mut resource);
        run("mount", &["-t", "tmpfs", "cover", text(&spec.mount)]);
        let Ok(Health::Failed(why)) = lab.settle(resource.monitor()) else { panic!("what is covered is called well") };
        assert!(why.contains("cover (tmpfs) is mounted on"), "{why}");
        let error = lab.settle(resource.stop(&context())).unwrap_err().to_string();
        assert!(error.contains("cover (tmpfs) is mounted over it"), "{error}");
        run("umount", &[text(&spec.mount)]);
        lab.stop(&mut resource);
    });
}

#[test]
fn what_the_kernel_refuses_is_put_into_words() {
    isolated(|lab| {
        let empty = lab.device(None);
        refused(lab, &lab.spec(&empty, "xfs"), &["mount(2): Invalid argument", "there is no xfs on it", "blkid"]);
        refused(lab, &lab.spec(&empty, "nosuchfs"), &["mount(2): No such device", "the kernel knows no nosuchfs"]);
        refused(lab, &lab.spec(&empty, "ext4"), &["exited with 8", "it could not be checked"]);
        refused(lab, &lab.spec(&lab.path("image0"), "xfs"), &["it is no block device", "losetup"]);
        let device = lab.device(Some("xfs"));
        let mut spec = lab.spec(&device, "xfs");
        spec.options = vec!["nosuchoption".into()];
        refused(lab, &spec, &["mount(2): Invalid argument", "or an option is unknown"]);
        run("blockdev", &["--setro", text(&device)]);
        spec.options.clear();
        let error = lab.refused(&mut lab.resource(&spec));
        assert!(error.contains("write-protected") || error.contains("is read-only"), "{error}");
        lab.settle(lab.resource(&spec).stop(&context())).unwrap();
        run("blockdev", &["--setrw", text(&device)]);
    });
}

#[test]
fn helpers_are_run_and_a_server_that_does_not_answer_is_bounded() {
    isolated(|lab| {
        // A folder of programs over the real one, in this namespace alone.
        let memory = lab.path("memory");
        fs::create_dir(&memory).unwrap();
        run("mount", &["-t", "tmpfs", "helpers", text(&memory)]);
        let (upper, work) = (memory.join("upper"), memory.join("work"));
        for folder in [&upper, &work] {
            fs::create_dir(folder).unwrap();
        }
        let options = format!("lowerdir=/usr/sbin,upperdir={},workdir={}", upper.display(), work.display());
        run("mount", &["-t", "overlay", "overlay", "-o", &options, "/usr/sbin"]);
        let helper = |script: &str| {
            fs::write("/usr/sbin/mount.nfs", format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions("/usr/sbin/mount.nfs", fs::Permissions::from_mode(0o755)).unwrap();
        };
        let mut spec = lab.spec(Path::new("server:/export"), "nfs");
        spec.options = vec!["vers=4.2".into(), "_netdev".into(), "ro".into()];
        helper("echo \"mount.nfs: access denied: $*\" >&2; exit 32");
        let told = format!("access denied: server:/export {} -o vers=4.2,ro", spec.mount.display());
        refused(lab, &spec, &["exited with 32", &told, "see that the server is there"]);
        helper("echo trying; sleep 600");
        let error = lab.refused(&mut lab.within(&spec, Duration::from_secs(2)));
        assert!(error.contains("did not end in time and was killed"), "{error}");
        helper("exit 0");
        refused(lab, &spec, &["nothing is mounted"]);
        // One that mounts what it was asked to: found, looked at and unmounted by its name.
        helper("mount -i -t tmpfs -o ro \"$1\" \"$2\"");
        let mut resource = lab.resource(&spec);
        lab.start(&mut resource);
        lab.start(&mut resource);
        lab.stop(&mut resource);
        unmount("/usr/sbin", UnmountFlags::DETACH).unwrap();
    });
}
