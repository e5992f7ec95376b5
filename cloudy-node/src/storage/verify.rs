//! Verification of a database record by record, also if its pages do not verify: it names each damaged record.

use core::fmt;
use std::collections::BTreeMap;
use std::fs::File;

use cloudy_proto::GroupId;
use redb::{Builder, ConcurrencyMode, ReadTransaction, ReadableDatabase, ReadableTable};

use super::error::{OpenStoreError, StoreError, guarded, open_error};
use super::group_records::{GROUP_KEY, GroupMeta, decode};
use super::op::{Record, Table};
use super::overlay::Overlay;
use super::packs::{self, GONE, PACKS};
use super::record::{self, Place, RECORDS};
use super::store::{STORE_CACHE_BYTES, open_database};

/// Maximum number of damaged records that are named.
const DAMAGE_MAX: usize = 1_000;

/// A damaged record of a data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// The group of the record; none for a record that belongs to no group.
    pub group: Option<GroupId>,
    /// The table of the record: one of [`Table`], `packs`, `packs' gone`, or `database` for the structure around them.
    pub table: String,
    /// The key of the record: hexadecimal digits, or words.
    pub record: String,
    /// The fault.
    pub fault: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table {}, record {}", self.table, self.record)?;
        if let Some(group) = self.group {
            write!(f, " of group {group}")?;
        }
        write!(f, ": {}", self.fault)
    }
}

/// The records of a database, counted, and the damaged ones.
#[derive(Debug, Default)]
pub(crate) struct Verified {
    /// Number of records, and their bytes with their values, for each table of each group.
    pub(crate) tables: BTreeMap<(GroupId, Table), (u64, u64)>,
    /// The damaged records, in the order of the database.
    pub(crate) damage: Vec<Damage>,
    packs: BTreeMap<u64, Pack>,
}

/// The references to a pack.
#[derive(Debug, Default)]
struct Pack {
    references: u32,
    /// The number of its values, as its references state.
    of: u32,
}

/// Verifies all records of the database in this file, and changes nothing.
///
/// # Errors
/// It is no database, or cannot be read at all.
pub(super) fn verify(file: impl Fn() -> Result<File, OpenStoreError>) -> Result<Verified, OpenStoreError> {
    let overlay = |hides_unclean| -> Result<Overlay, OpenStoreError> {
        Overlay::on(file()?, hides_unclean).map_err(|error| open_error(error.into()))
    };
    let mut verified = Verified::default();
    match open_database(overlay(false)?) {
        Ok(database) => {
            verified.of_database(&database);
            Ok(verified)
        }
        Err(OpenStoreError::Store(StoreError::DatabaseDamaged { cause })) => {
            let unchecked = guarded(|| {
                let mut builder = Builder::new();
                builder.set_cache_size(STORE_CACHE_BYTES).set_concurrency_mode(ConcurrencyMode::SingleWriter);
                Ok(builder.open_read_only_with_backend(
                    overlay(true).map_err(|error| redb::Error::Corrupted(error.to_string()))?,
                )?)
            });
            match unchecked {
                Ok(database) => verified.of_database(&database),
                Err(error) => verified.found(None, "database", "header".to_owned(), error.to_string()),
            }
            if verified.damage.is_empty() {
                let fault = format!("a page outside all readable records was altered ({cause})");
                verified.found(None, "database", "none".to_owned(), fault);
            }
            Ok(verified)
        }
        Err(error) => Err(error),
    }
}

impl Verified {
    fn of_database(&mut self, database: &impl ReadableDatabase) {
        let walked = guarded(|| {
            let read = database.begin_read()?;
            self.records(&read);
            self.pieces(&read);
            self.gone(&read);
            Ok(())
        });
        if let Err(error) = walked {
            self.found(None, "database", "header".to_owned(), error.to_string());
        }
    }

    fn found(&mut self, group: Option<GroupId>, table: impl ToString, record: String, fault: String) {
        if self.damage.len() < DAMAGE_MAX {
            self.damage.push(Damage { group, table: table.to_string(), record, fault });
        }
    }

    /// Reads all records. Where the database's structure is damaged, the walk continues at the next table.
    fn records(&mut self, read: &ReadTransaction) {
        let mut from = Some(Vec::new());
        // Tables in a row that begin in an unreadable part.
        let mut fruitless = 0;
        while let Some(start) = from.take().filter(|_| fruitless <= Table::ALL.len()) {
            let mut last = start.clone();
            let walked = guarded(|| {
                let (records, packs) = (read.open_table(RECORDS)?, read.open_table(PACKS)?);
                for entry in records.range::<&[u8]>(start.as_slice()..)? {
                    let (key, sealed) = entry?;
                    last = key.value().to_vec();
                    self.record(&last, sealed.value(), &packs);
                }
                Ok(())
            });
            if let Err(error) = walked {
                fruitless = if last > start { 0 } else { fruitless + 1 };
                let after = last.max(start);
                if fruitless <= 1 {
                    self.unreadable_after(&after, &error);
                }
                from = record::next_table(&after);
            }
        }
    }

    fn unreadable_after(&mut self, full_key: &[u8], error: &redb::Error) {
        let (group, table) = match record::group_of(full_key) {
            Some((group, _)) => {
                (Some(group), record::table_of(full_key).map_or("meta".to_owned(), |of| of.to_string()))
            }
            None => (None, Table::Meta.to_string()),
        };
        let fault = format!("the records of this table after this one cannot be read ({error})");
        self.found(group, table, hexadecimal(record::key_of(full_key)), fault);
    }

    fn record(&mut self, full_key: &[u8], sealed: &[u8], packs: &impl ReadableTable<packs::PieceKey, &'static [u8]>) {
        let key = record::key_of(full_key);
        let Some((group, _)) = record::group_of(full_key) else {
            return self.found(None, "records", hexadecimal(full_key), "its key was altered".to_owned());
        };
        if record::is_forgotten_key(full_key) {
            if !key.is_empty() || !sealed.is_empty() {
                self.found(Some(group), "records", hexadecimal(full_key), "its key was altered".to_owned());
            }
            return;
        }
        let Some(table) = record::table_of(full_key) else {
            let fault = "the number of its table was altered".to_owned();
            return self.found(Some(group), "records", hexadecimal(full_key), fault);
        };
        let counted = self.tables.entry((group, table)).or_default();
        *counted = (counted.0 + 1, counted.1 + record::whole_bytes(full_key, sealed) as u64);
        let place = record::place_of(sealed).filter(|_| table.is_bulk());
        let read = guarded(|| record::unsealed(group, table, full_key, sealed, |place| packs::read(packs, place)));
        let of_pack = place.map_or(String::new(), |place| format!(", or its value in pack {}", place.pack));
        let altered = match read {
            Ok(Ok(Record { key, value })) if is_known(table, &key, value.clone()) => {
                return self.refer(place);
            }
            Ok(Ok(_)) => "it is none that this version of cloudy writes".to_owned(),
            Ok(Err(_)) => format!("it{of_pack} was altered: the checksum differs"),
            Err(error) => format!("it{of_pack} cannot be read ({error})"),
        };
        self.found(Some(group), table, hexadecimal(key), altered);
        self.refer(place);
    }

    fn refer(&mut self, place: Option<Place>) {
        let Some(Place { pack, of, .. }) = place else { return };
        let pack = self.packs.entry(pack).or_default();
        pack.references += 1;
        pack.of = pack.of.max(of);
    }

    /// Reads the pieces of all packs: each follows the one before, and each pack has a reference.
    fn pieces(&mut self, read: &ReadTransaction) {
        let (mut expected, mut last) = ((0, 0), (0, 0));
        let walked = guarded(|| {
            for piece in read.open_table(PACKS)?.iter()? {
                let (key, piece) = piece?;
                last = key.value();
                let follows = if last.0 == expected.0 { last.1 == expected.1 } else { last.1 == 0 };
                if !follows || !self.packs.contains_key(&last.0) {
                    let fault = if follows { "no record has a value in it" } else { "a piece before it is missing" };
                    self.found(None, "packs", format!("pack {}, offset {}", last.0, last.1), fault.to_owned());
                }
                expected = (last.0, last.1 + piece.value().len() as u64);
            }
            Ok(())
        });
        if let Err(error) = walked {
            let fault = format!("the pieces after this one cannot be read ({error})");
            self.found(None, "packs", format!("pack {}, offset {}", last.0, last.1), fault);
        }
    }

    /// Compares the numbers of deleted values with the references.
    fn gone(&mut self, read: &ReadTransaction) {
        let mut gone = BTreeMap::new();
        let mut last = 0;
        let walked = guarded(|| {
            for entry in read.open_table(GONE)?.iter()? {
                let (pack, count) = entry?;
                last = pack.value();
                gone.insert(last, count.value());
            }
            Ok(())
        });
        if let Err(error) = walked {
            let fault = format!("the records after this one cannot be read ({error})");
            return self.found(None, "packs' gone", format!("pack {last}"), fault);
        }
        for (number, count) in &gone {
            if !self.packs.contains_key(number) {
                let fault = format!("it counts {count} deleted values of a pack without references");
                self.found(None, "packs' gone", format!("pack {number}"), fault);
            }
        }
        for (number, Pack { references, of }) in std::mem::take(&mut self.packs) {
            let count = gone.get(&number).copied().unwrap_or_default();
            if references.checked_add(count) != Some(of) {
                let fault = format!("{count} deleted and {references} referenced values, and the pack has {of}");
                self.found(None, "packs' gone", format!("pack {number}"), fault);
            }
        }
    }
}

fn is_known(table: Table, key: &[u8], value: bytes::Bytes) -> bool {
    if table == Table::Meta && key == GROUP_KEY {
        return postcard::from_bytes::<GroupMeta>(&value).is_ok();
    }
    decode(table, key, value).is_some()
}

/// A key for readers: as text where it is text.
fn hexadecimal(key: &[u8]) -> String {
    if !key.is_empty() && key.iter().all(u8::is_ascii_lowercase) {
        return String::from_utf8_lossy(key).into_owned();
    }
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}
