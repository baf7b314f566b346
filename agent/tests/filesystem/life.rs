//! Mounting, looking and unmounting.

use std::{fs, time::Duration};

use baton::{
    config::kinds::Fsck,
    resources::{Health, Resource as _},
};

use crate::lab::{context, isolated, output, run, text};

#[test]
fn ext4_xfs_and_btrfs_are_mounted_and_are_gone_after_a_stop() {
    isolated(|lab| {
        for kind in ["ext4", "xfs", "btrfs"] {
            let device = lab.device(Some(kind));
            let mut spec = lab.spec(&device, kind);
            spec.options = vec!["noatime".into(), "nodev".into(), "nofail".into()];
            spec.monitor_write = true;
            let mut resource = lab.resource(&spec);
            assert_eq!(lab.settle(resource.probe()), Ok(Health::Stopped));
            lab.stop(&mut resource);
            lab.start(&mut resource);
            lab.start(&mut resource);
            let shown = output("findmnt", &["-no", "SOURCE,FSTYPE,OPTIONS", text(&spec.mount)]);
            for word in [text(&device), kind, "noatime", "nodev"] {
                assert!(shown.contains(word), "{shown}");
            }
            fs::write(spec.mount.join("file"), kind).unwrap();
            assert_eq!(
                fs::read_dir(&spec.mount).unwrap().filter(|e| e.as_ref().unwrap().file_name() != "lost+found").count(),
                1
            );
            // The next agent knows nothing, and finds it.
            drop(resource);
            let mut resource = lab.resource(&spec);
            assert_eq!(lab.settle(resource.probe()), Ok(Health::Running));
            lab.stop(&mut resource);
            lab.stop(&mut resource);
            assert_eq!(fs::read_dir(&spec.mount).unwrap().count(), 0);
            // By another name of the device.
            let link = lab.path(&format!("by-name-{kind}"));
            std::os::unix::fs::symlink(&device, &link).unwrap();
            spec.device = text(&link).into();
            let mut resource = lab.resource(&spec);
            lab.start(&mut resource);
            assert_eq!(fs::read_to_string(spec.mount.join("file")).unwrap(), kind);
            // The name goes away meanwhile, as it does when a disk does.
            fs::remove_file(&link).unwrap();
            assert_eq!(lab.settle(resource.monitor()), Ok(Health::Running));
            drop(resource);
            let mut resource = lab.resource(&spec);
            assert_eq!(lab.settle(resource.probe()), Ok(Health::Running));
            lab.stop(&mut resource);
        }
    });
}

#[test]
fn a_device_that_comes_late_is_waited_for_and_one_that_does_not_come_is_named() {
    isolated(|lab| {
        let device = lab.device(Some("ext4"));
        let link = lab.path("late");
        let spec = lab.spec(&link, "ext4");
        let mut resource = lab.within(&spec, Duration::from_secs(1));
        let error = lab.refused(&mut resource);
        let expected = format!("start of files/data: {}: no such device appeared within 1s", link.display());
        assert!(error.starts_with(&expected), "{error}");
        let mut resource = lab.resource(&spec);
        assert!(lab.give_up(resource.start(&context()), Duration::from_millis(300)).is_none());
        lab.stop(&mut resource);
        let (from, to) = (device.clone(), link.clone());
        let later = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            std::os::unix::fs::symlink(from, to).unwrap();
        });
        lab.start(&mut resource);
        later.join().unwrap();
        lab.stop(&mut resource);
        let mut spec = lab.spec(&link, "ext4");
        spec.device = "LABEL=nothing has this label".into();
        let error = lab.refused(&mut lab.within(&spec, Duration::from_millis(300)));
        assert!(error.contains("/dev/disk/by-label/nothing\\x20has\\x20this\\x20label: no such device"), "{error}");
    });
}

#[test]
fn a_filesystem_with_errors_is_found_ill() {
    isolated(|lab| {
        // ext4 goes read-only by itself.
        let device = lab.device(Some("ext4"));
        let mut spec = lab.spec(&device, "ext4");
        spec.options = vec!["errors=remount-ro".into()];
        let mut resource = lab.resource(&spec);
        lab.start(&mut resource);
        let name = device.file_name().unwrap().to_str().unwrap();
        fs::write(format!("/sys/fs/ext4/{name}/trigger_fs_error"), "made by a test").unwrap();
        let Ok(Health::Failed(why)) = lab.settle(resource.monitor()) else { panic!("it is well") };
        assert!(why.contains("is read-only") && why.contains("dmesg"), "{why}");
        assert!(lab.refused(&mut resource).contains("is read-only"), "a start does not call it well either");
        lab.stop(&mut resource);
        // Its check repairs what it can, and it is mounted again.
        lab.start(&mut resource);
        lab.stop(&mut resource);
        // One that shall be read-only is well.
        spec.options = vec!["ro".into()];
        let mut resource = lab.resource(&spec);
        lab.start(&mut resource);
        lab.stop(&mut resource);
        // xfs shuts down.
        let device = lab.device(Some("xfs"));
        let spec = lab.spec(&device, "xfs");
        let mut resource = lab.resource(&spec);
        lab.start(&mut resource);
        run("xfs_io", &["-x", "-c", "shutdown", text(&spec.mount)]);
        let Ok(Health::Failed(why)) = lab.settle(resource.monitor()) else { panic!("it is well") };
        assert!(why.contains("error") || why.contains("shutdown"), "{why}");
        lab.stop(&mut resource);
        lab.start(&mut resource);
        lab.stop(&mut resource);
    });
}

#[test]
fn a_full_filesystem_is_found_by_writing() {
    isolated(|lab| {
        let device = lab.device(Some("ext4"));
        let mut spec = lab.spec(&device, "ext4");
        spec.monitor_write = true;
        let mut resource = lab.resource(&spec);
        lab.start(&mut resource);
        let filler = fs::write(spec.mount.join("filler"), vec![1; 64 << 20]);
        assert_eq!(filler.unwrap_err().raw_os_error(), Some(libc::ENOSPC));
        // What the allocation of a large file leaves over.
        run("sync", &["-f", text(&spec.mount)]);
        for n in 0.. {
            let small = fs::File::create(spec.mount.join(format!("small{n}")));
            if small.and_then(|mut f| std::io::Write::write_all(&mut f, &[1]).and_then(|()| f.sync_all())).is_err() {
                break;
            }
        }
        let Ok(Health::Failed(why)) = lab.settle(resource.monitor()) else { panic!("it is well") };
        assert!(why.contains("cannot be written: No space left on device"), "{why}");
        fs::remove_file(spec.mount.join("filler")).unwrap();
        assert_eq!(lab.settle(resource.monitor()), Ok(Health::Running));
        lab.stop(&mut resource);
    });
}

#[test]
fn a_check_repairs_or_refuses_in_its_own_words() {
    isolated(|lab| {
        let device = lab.device(Some("ext4"));
        let mut spec = lab.spec(&device, "ext4");
        // What would not be repaired without asking is only looked at in full, or when the filesystem says that it has errors.
        run("debugfs", &["-w", "-R", "clri <2>", text(&device)]);
        spec.fsck = Fsck::Force;
        let error = lab.refused(&mut lab.resource(&spec));
        for words in ["exited with 4", "not repaired without asking", "UNEXPECTED INCONSISTENCY", "by hand: `e2fsck "] {
            assert!(error.contains(words), "no \"{words}\" in {error}");
        }
        lab.stop(&mut lab.resource(&spec));
        let done = std::process::Command::new("e2fsck").args(["-fy", text(&device)]).output().unwrap();
        assert_eq!(done.status.code(), Some(1), "{done:?}");
        let mut resource = lab.resource(&spec);
        lab.start(&mut resource);
        lab.stop(&mut resource);
    });
}
