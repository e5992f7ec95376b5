//! Access to a file: its owner, its mode, and its access list where it has one.

use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};

use super::WrongRights;

/// The user and group ids by which the system grants access to a process.
#[derive(Debug)]
struct Process {
    user: u32,
    groups: Vec<u32>,
}

impl Process {
    fn this() -> Self {
        let mut groups = vec![rustix::process::getegid().as_raw()];
        // Without its other groups, a group's file is refused, which is safe.
        groups.extend(rustix::process::getgroups().unwrap_or_default().into_iter().map(|group| group.as_raw()));
        Self { user: rustix::process::geteuid().as_raw(), groups }
    }
}

/// The owner of a file, and the rights of others.
#[derive(Debug)]
struct Owned {
    owner: u32,
    group: u32,
    mode: u32,
    acl: Option<Vec<u8>>,
}

/// Checks the rights to a file that is a secret of this process. Root or this process's user must own it. Of all
/// others, only members of a group of this process may have rights, namely `group_rights`. With `as_root_any_owner`,
/// root accepts a file of any user, to change it for that user.
pub(crate) fn wrong_rights(file: &File, group_rights: u32, as_root_any_owner: bool) -> io::Result<Option<WrongRights>> {
    let metadata = file.metadata()?;
    let (owner, group) = (metadata.uid(), metadata.gid());
    let owned = Owned { owner, group, mode: metadata.mode() & 0o7777, acl: acl::of(file) };
    Ok(wrong(&owned, &Process::this(), group_rights, as_root_any_owner))
}

fn wrong(file: &Owned, process: &Process, group_rights: u32, as_root_any_owner: bool) -> Option<WrongRights> {
    let owner = file.owner;
    // The groups of another user are not known here.
    let for_its_owner = as_root_any_owner && process.user == 0;
    let may_own = owner == 0 || owner == process.user || for_its_owner;
    if !may_own {
        return Some(WrongRights::OtherOwner { owner });
    }
    let group_is_fine = |group: u32, rights: u32| {
        rights == 0 || rights & !group_rights == 0 && (for_its_owner || process.groups.contains(&group))
    };
    let user_is_fine =
        |user: u32, rights: u32| rights == 0 || for_its_owner || [0, owner, process.user].contains(&user);
    let others = file.mode & 0o007;
    let is_fine = others == 0
        && match &file.acl {
            None => group_is_fine(file.group, file.mode >> 3 & 0o7),
            // With an access list the group bits of the mode are its mask.
            Some(acl) => acl::entries(acl).is_some_and(|entries| {
                let mask = entries.iter().find(|entry| entry.tag == acl::MASK).map_or(0o7, |mask| mask.rights);
                entries.iter().all(|entry| match entry.tag {
                    acl::USER => user_is_fine(entry.id, entry.rights & mask),
                    acl::OWNING_GROUP => group_is_fine(file.group, entry.rights & mask),
                    acl::GROUP => group_is_fine(entry.id, entry.rights & mask),
                    acl::OTHERS => entry.rights == 0,
                    _ => true,
                })
            }),
        };
    (!is_fine).then_some(WrongRights::Loose { mode: file.mode })
}

/// Gives a new file the owner, group, mode and access list of the file that it replaces.
///
/// # Errors
/// The system does not allow this process to change owners.
pub(crate) fn keep_owner(old: &File, new: &File) -> io::Result<()> {
    let (of_old, of_new) = (old.metadata()?, new.metadata()?);
    if (of_old.uid(), of_old.gid()) != (of_new.uid(), of_new.gid()) {
        let user = (of_old.uid() != of_new.uid()).then_some(of_old.uid());
        fchown(new, user, Some(of_old.gid()))?;
    }
    new.set_permissions(PermissionsExt::from_mode(of_old.mode() & 0o7777))?;
    match acl::of(old) {
        Some(acl) => acl::set(new, &acl),
        None => Ok(()),
    }
}

/// POSIX access lists (acl(5)), as Linux keeps them in an extended attribute.
mod acl {
    use std::fs::File;
    use std::io;

    pub(super) const USER: u16 = 0x02;
    pub(super) const OWNING_GROUP: u16 = 0x04;
    pub(super) const GROUP: u16 = 0x08;
    pub(super) const MASK: u16 = 0x10;
    pub(super) const OTHERS: u16 = 0x20;

    const VERSION: [u8; 4] = 2_u32.to_le_bytes();
    const ENTRY_BYTES: usize = 8;
    #[cfg(target_os = "linux")]
    const NAME: &str = "system.posix_acl_access";
    /// Longer than any list that a person writes; a longer list counts as unreadable.
    #[cfg(target_os = "linux")]
    const BYTES_MAX: usize = 4 << 10;

    #[derive(Debug, PartialEq)]
    pub(super) struct Entry {
        pub(super) tag: u16,
        pub(super) rights: u32,
        pub(super) id: u32,
    }

    /// None if there is no list, or an empty one.
    pub(super) fn entries(acl: &[u8]) -> Option<Vec<Entry>> {
        let entries = acl.strip_prefix(&VERSION)?.chunks(ENTRY_BYTES).map(|entry| {
            let [t0, t1, r0, r1, i0, i1, i2, i3] = *entry else { return None };
            let rights = u32::from(u16::from_le_bytes([r0, r1]));
            Some(Entry { tag: u16::from_le_bytes([t0, t1]), rights, id: u32::from_le_bytes([i0, i1, i2, i3]) })
        });
        entries.collect()
    }

    /// The file's list, if it has one.
    #[cfg(target_os = "linux")]
    pub(super) fn of(file: &File) -> Option<Vec<u8>> {
        let mut acl = vec![0; BYTES_MAX];
        match rustix::fs::fgetxattr(file, NAME, &mut acl[..]) {
            Ok(length) => {
                acl.truncate(length);
                Some(acl)
            }
            // The file has rights that cannot be read.
            Err(rustix::io::Errno::RANGE) => Some(Vec::new()),
            Err(_) => None,
        }
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn of(_: &File) -> Option<Vec<u8>> {
        None
    }

    #[cfg(target_os = "linux")]
    pub(super) fn set(file: &File, acl: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::fsetxattr(file, NAME, acl, rustix::fs::XattrFlags::empty())?)
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn set(_: &File, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{GROUP_READS, GROUP_READS_AND_WRITES};
    use super::*;

    const SERVICE: u32 = 1_000;
    const OTHER: u32 = 1_001;
    const FS_GROUP: u32 = 2_000;

    fn file(owner: u32, group: u32, mode: u32) -> Owned {
        Owned { owner, group, mode, acl: None }
    }

    fn service() -> Process {
        Process { user: SERVICE, groups: vec![SERVICE, FS_GROUP] }
    }

    fn list(entries: &[(u16, u16, u32)]) -> Option<Vec<u8>> {
        let mut acl = 2_u32.to_le_bytes().to_vec();
        for (tag, rights, id) in entries {
            acl.extend([&tag.to_le_bytes()[..], &rights.to_le_bytes(), &id.to_le_bytes()].concat());
        }
        Some(acl)
    }

    #[test]
    fn only_root_and_the_own_user_may_own_a_secret() {
        let of = |owner, process: &Process, any| wrong(&file(owner, owner, 0o600), process, GROUP_READS, any);
        for (owner, expected) in [(0, None), (SERVICE, None), (OTHER, Some(WrongRights::OtherOwner { owner: OTHER }))] {
            assert_eq!(of(owner, &service(), false), expected);
            assert_eq!(of(owner, &service(), true), expected, "only root may change the files of others");
        }
        let root = Process { user: 0, groups: vec![0] };
        assert_eq!(of(OTHER, &root, false), Some(WrongRights::OtherOwner { owner: OTHER }));
        assert_eq!(of(OTHER, &root, true), None);
        assert_eq!(wrong(&file(OTHER, OTHER, 0o640), &root, GROUP_READS, true), None);
        let loose = Some(WrongRights::Loose { mode: 0o644 });
        assert_eq!(wrong(&file(OTHER, OTHER, 0o644), &root, GROUP_READS, true), loose);
    }

    #[test]
    fn a_group_of_the_process_may_read_and_all_others_nothing() {
        let of = |group, mode, rights| wrong(&file(0, group, mode), &service(), rights, false).is_none();
        // Kubernetes (fsGroup), Swarm (gid) and systemd mount secrets in this way.
        for (group, mode) in [(FS_GROUP, 0o440), (SERVICE, 0o640), (OTHER, 0o400), (OTHER, 0o600)] {
            assert!(of(group, mode, GROUP_READS), "{group} {mode:o}");
        }
        for (group, mode) in
            [(OTHER, 0o440), (FS_GROUP, 0o444), (FS_GROUP, 0o604), (FS_GROUP, 0o660), (FS_GROUP, 0o602)]
        {
            assert!(!of(group, mode, GROUP_READS), "{group} {mode:o}");
        }
        assert!(of(FS_GROUP, 0o660, GROUP_READS_AND_WRITES) && !of(OTHER, 0o660, GROUP_READS_AND_WRITES));
    }

    #[test]
    fn an_access_list_counts_in_place_of_the_group_bits() {
        let with = |entries: &[(u16, u16, u32)], mode| {
            let file = Owned { acl: list(entries), ..file(0, 0, mode) };
            wrong(&file, &service(), GROUP_READS, false).is_none()
        };
        let (owner, none) = ((0x01, 6, u32::MAX), (acl::OWNING_GROUP, 0, u32::MAX));
        let (mask, others) = ((acl::MASK, 4, u32::MAX), (acl::OTHERS, 0, u32::MAX));
        // systemd gives a credential to the user of a service in this way.
        assert!(with(&[owner, (acl::USER, 4, SERVICE), none, mask, others], 0o440));
        assert!(!with(&[owner, (acl::USER, 4, OTHER), none, mask, others], 0o440));
        assert!(with(&[owner, (acl::USER, 3, OTHER), none, mask, others], 0o440), "the mask takes it away");
        assert!(with(&[owner, none, (acl::GROUP, 4, FS_GROUP), mask, others], 0o440));
        assert!(!with(&[owner, none, (acl::GROUP, 4, OTHER), mask, others], 0o440));
        assert!(!with(&[owner, (acl::OWNING_GROUP, 4, 0), mask, others], 0o440));
        let torn = Owned { acl: Some(vec![2, 0, 0, 0, 1]), ..file(0, 0, 0o440) };
        assert!(wrong(&torn, &service(), GROUP_READS, false).is_some());
    }
}
