//! Stops of filesystems that are in use.

use std::{fs, time::Duration};

use baton::{config::kinds::Busy, resources::Resource as _};

use crate::lab::{context, isolated, run, text, until};

#[test]
fn who_holds_it_is_named_and_left_alone_if_the_configuration_says_so() {
    isolated(|lab| {
        let device = lab.device(Some("ext4"));
        let mut spec = lab.spec(&device, "ext4");
        spec.busy = Busy::Fail;
        let mut resource = lab.within(&spec, Duration::from_secs(4));
        lab.start(&mut resource);
        let folder = spec.mount.display().to_string();
        let opener = lab.holder("sh", &["-c", &format!("exec 9>{folder}/file; echo ready; sleep 600 9>&- & wait")]);
        fs::copy("/bin/busybox", spec.mount.join("busybox")).unwrap();
        let runner = lab.holder(&format!("{folder}/busybox"), &["sh", "-c", "echo ready; read x < /dev/zero; true"]);
        let walker = lab.holder("sh", &["-c", &format!("cd {folder}; echo ready; read x < /dev/zero; true")]);
        let error = lab.settle(resource.stop(&context())).unwrap_err().to_string();
        for words in [
            format!("stop of files/data: {folder}: it is in use by "),
            format!("{opener}"),
            format!("busybox (process {runner}: program, mapped files)"),
            "end these".to_owned(),
        ] {
            assert!(error.contains(&words), "no \"{words}\" in {error}");
        }
        for pid in [opener, runner, walker] {
            assert!(!lab.ended(pid), "{pid} was ended");
        }
        // The same with leave to end them.
        spec.busy = Busy::Kill;
        let mut resource = lab.resource(&spec);
        lab.stop(&mut resource);
        for pid in [opener, runner, walker] {
            until(|| lab.ended(pid), "it lives still");
        }
    });
}

#[test]
fn one_that_does_not_heed_sigterm_is_killed() {
    isolated(|lab| {
        let device = lab.device(Some("xfs"));
        let spec = lab.spec(&device, "xfs");
        let mut resource = lab.within(&spec, Duration::from_secs(4));
        lab.start(&mut resource);
        let script = format!("trap '' TERM; cd {}; echo ready; while :; do sleep 1; done", spec.mount.display());
        let stubborn = lab.holder("sh", &["-c", &script]);
        lab.stop(&mut resource);
        until(|| lab.ended(stubborn), "it lives still");
    });
}

#[test]
fn copies_in_other_mount_namespaces_and_mounts_beneath_go_too() {
    isolated(|lab| {
        let device = lab.device(Some("ext4"));
        let spec = lab.spec(&device, "ext4");
        let mut resource = lab.resource(&spec);
        lab.start(&mut resource);
        let bound = lab.path("bound");
        fs::create_dir(&bound).unwrap();
        fs::create_dir(spec.mount.join("below")).unwrap();
        run("mount", &["--bind", text(&spec.mount), text(&bound)]);
        run("mount", &["-t", "tmpfs", "below", text(&spec.mount.join("below"))]);
        // A namespace with a copy that nobody uses, and one whose process stands on it.
        let idle = lab.holder("unshare", &["--mount", "sh", "-c", "echo ready; exec sleep 600"]);
        let script = format!("cd {}; echo ready; exec sleep 600", spec.mount.display());
        let inside = lab.holder("unshare", &["--mount", "sh", "-c", &script]);
        lab.stop(&mut resource);
        until(|| lab.ended(inside), "it lives still");
        assert!(!lab.ended(idle), "nobody had to be ended for a copy that nobody uses");
        let seen = fs::read_to_string(format!("/proc/{idle}/mountinfo")).unwrap();
        assert!(!seen.contains(text(&device)), "{seen}");
        lab.start(&mut resource);
        lab.stop(&mut resource);
    });
}

#[test]
fn what_no_signal_ends_is_named_with_what_does() {
    isolated(|lab| {
        let device = lab.device(Some("ext4"));
        let spec = lab.spec(&device, "ext4");
        let mut resource = lab.within(&spec, Duration::from_secs(4));
        lab.start(&mut resource);
        let image = spec.mount.join("image");
        fs::write(&image, vec![0; 1 << 20]).unwrap();
        let inner = crate::lab::output("losetup", &["--find", "--show", text(&image)]);
        let error = lab.settle(resource.stop(&context())).unwrap_err().to_string();
        // Ended before anything is asserted, so that no device stays behind.
        run("losetup", &["-d", inner.trim()]);
        assert!(error.contains(&format!("(end it by `losetup -d {}`)", inner.trim())), "{error}");
        let swap = spec.mount.join("swap");
        fs::write(&swap, vec![0; 4 << 20]).unwrap();
        fs::set_permissions(&swap, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        run("mkswap", &["-q", text(&swap)]);
        run("swapon", &[text(&swap)]);
        let error = lab.settle(resource.stop(&context())).unwrap_err().to_string();
        run("swapoff", &[text(&swap)]);
        assert!(error.contains(&format!("(end it by `swapoff {}`)", swap.display())), "{error}");
        lab.stop(&mut resource);
    });
}
