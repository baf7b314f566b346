//! Users and groups by name, as the system knows them (getpwnam_r(3), getgrnam_r(3), getgrouplist(3)): files, LDAP, what have you.

use std::{ffi::CString, io, mem::MaybeUninit, path::PathBuf, ptr};

/// Larger than any entry that is of use; a group of thousands of members has its names in here.
const ENTRY_BYTES_MAX: usize = 1 << 20;
/// The kernel's own bound (NGROUPS_MAX).
const GROUPS_MAX: usize = 65_536;

/// Who a program runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The user's name.
    pub name: String,
    /// The user's number.
    pub uid: u32,
    /// The number of the group.
    pub gid: u32,
    /// All groups that it is in.
    pub groups: Vec<u32>,
    /// The user's home.
    pub home: PathBuf,
}

impl Account {
    /// A user by its name or number, in its own group or another one. It asks the name service, which may take its time.
    ///
    /// # Errors
    /// `NotFound` when there is no such user or group, or the name service's error.
    pub fn find(user: &str, group: Option<&str>) -> io::Result<Self> {
        let missing =
            |what: &str, name: &str| io::Error::new(io::ErrorKind::NotFound, format!("there is no {what} \"{name}\""));
        let mut account = user_named(user)?.ok_or_else(|| missing("user", user))?;
        if let Some(group) = group {
            account.gid = match group.parse() {
                Ok(gid) => gid,
                Err(_) => group_named(group)?.ok_or_else(|| missing("group", group))?,
            };
        }
        account.groups = groups_of(&account.name, account.gid)?;
        Ok(account)
    }
}

fn user_named(user: &str) -> io::Result<Option<Account>> {
    let name = CString::new(user)?;
    let number: Option<libc::uid_t> = user.parse().ok();
    let mut entry = MaybeUninit::<libc::passwd>::uninit();
    let mut found: *mut libc::passwd = ptr::null_mut();
    let mut buffer = vec![0_u8; 4 << 10];
    loop {
        let (room, length) = (buffer.as_mut_ptr().cast(), buffer.len());
        let answer = match number {
            // SAFETY: entry, buffer with its length, and found outlive the call.
            Some(uid) => unsafe { libc::getpwuid_r(uid, entry.as_mut_ptr(), room, length, &raw mut found) },
            // SAFETY: as above; the name ends with a zero byte.
            None => unsafe { libc::getpwnam_r(name.as_ptr(), entry.as_mut_ptr(), room, length, &raw mut found) },
        };
        if answer == libc::ERANGE && buffer.len() < ENTRY_BYTES_MAX {
            buffer.resize(buffer.len() * 4, 0);
            continue;
        }
        if found.is_null() {
            return no_entry(answer);
        }
        // SAFETY: found is not null, so the entry was filled, and its strings stand in the buffer, which lives still.
        let (entry, words) = unsafe {
            let entry = entry.assume_init();
            let words = [entry.pw_name, entry.pw_dir].map(|word| std::ffi::CStr::from_ptr(word).to_owned());
            (entry, words)
        };
        let [name, home] = words.map(|word| word.to_string_lossy().into_owned());
        let (uid, gid) = (entry.pw_uid, entry.pw_gid);
        return Ok(Some(Account { name, uid, gid, groups: Vec::new(), home: home.into() }));
    }
}

fn group_named(group: &str) -> io::Result<Option<u32>> {
    let name = CString::new(group)?;
    let mut entry = MaybeUninit::<libc::group>::uninit();
    let mut found: *mut libc::group = ptr::null_mut();
    let mut buffer = vec![0_u8; 4 << 10];
    loop {
        let (room, length) = (buffer.as_mut_ptr().cast(), buffer.len());
        // SAFETY: name, entry, buffer with its length, and found outlive the call.
        let answer = unsafe { libc::getgrnam_r(name.as_ptr(), entry.as_mut_ptr(), room, length, &raw mut found) };
        if answer == libc::ERANGE && buffer.len() < ENTRY_BYTES_MAX {
            buffer.resize(buffer.len() * 4, 0);
            continue;
        }
        if found.is_null() {
            return no_entry(answer);
        }
        // SAFETY: found is not null, so the entry was filled.
        return Ok(Some(unsafe { entry.assume_init() }.gr_gid));
    }
}

/// getpwnam_r(3): several numbers mean that there is none.
fn no_entry<T>(answer: i32) -> io::Result<Option<T>> {
    match answer {
        0 | libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM => Ok(None),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

fn groups_of(user: &str, gid: u32) -> io::Result<Vec<u32>> {
    let name = CString::new(user)?;
    let mut groups: Vec<libc::gid_t> = vec![0; 64];
    loop {
        let mut count = i32::try_from(groups.len()).unwrap_or(i32::MAX);
        // SAFETY: the list has room for `count` numbers, and the name ends with a zero byte.
        let answer = unsafe { libc::getgrouplist(name.as_ptr(), gid, groups.as_mut_ptr(), &raw mut count) };
        let count = usize::try_from(count).unwrap_or(0);
        if answer >= 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        if groups.len() >= GROUPS_MAX {
            return Err(io::Error::other(format!("user \"{user}\" is in more than {GROUPS_MAX} groups")));
        }
        groups.resize(count.max(groups.len() * 2).min(GROUPS_MAX), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups_are_found_by_name_and_by_number() {
        let root = Account::find("root", None).unwrap();
        assert_eq!((root.uid, root.gid, root.home.to_str()), (0, 0, Some("/root")));
        assert!(root.groups.contains(&0));
        assert_eq!(Account::find("0", None).unwrap(), root);
        let daemon = Account::find("daemon", Some("nogroup")).unwrap();
        assert!(daemon.uid != 0 && daemon.gid == 65_534 && daemon.groups.contains(&65_534), "{daemon:?}");
        for (user, group, words) in [
            ("nobody-at-all", None, "no user \"nobody-at-all\""),
            ("root", Some("none-at-all"), "no group \"none-at-all\""),
        ] {
            let error = Account::find(user, group).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}
