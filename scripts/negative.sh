#!/usr/bin/env bash
# A check that cannot fail is a defect: each guard of this table gets a switch in a copy of the sources, and with the guard
# switched off the test that names it must fail. All switches are built in at once, so that it is one build and then some
# seconds a guard; and with none of them off every named test must pass, or its failing would show nothing.
#
#   scripts/negative.sh [FIRST [LAST]]   guards by their number, all of them by default; takes some minutes, not part of the gate
#
# The copy stays below CARGO_TARGET_DIR, so that the next time only what changed is built. Its crates have a version of their own:
# to cargo a copy is the same package, and what was built of it would be taken for fresh in the checkout, switches and all.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib/say.sh
. scripts/lib/say.sh
# shellcheck source=scripts/lib/deps.sh
. scripts/lib/deps.sh
default_target_dir

# Four lines a guard: file, text to find (its first place), what stands there instead (`OFF`: the guard's own switch, a bool),
# test that must fail; then an empty line.
guards() {
    cat <<'TABLE'
crates/backup-core/src/pipeline/known.rs
if self.listed.binary_search(&line).is_err() {
if !OFF && self.listed.binary_search(&line).is_err() {
only_what_a_listing_confirms_is_known

crates/backup-core/src/seal.rs
if found != *name {
if !OFF && found != *name {
altered_foreign_and_loose_objects_are_refused

crates/backup-core/src/signature.rs
if pinned.is_empty() {
if !OFF && pinned.is_empty() {
only_a_pinned_key_in_the_right_namespace

crates/backup-core/src/vault.rs
if doc.path() != *path {
if !OFF && doc.path() != *path {
a_document_with_its_signature_at_another_path_is_not_believed

crates/backup-core/src/backup/commit.rs
if now > deadline {
if !OFF && now > deadline {
past_the_deadline_by_the_stores_clock_nothing_is_committed

crates/backup-core/src/backup.rs
withdraw_if_pruned(vault, host, &dir, &committed, &told).await?;
if !OFF { withdraw_if_pruned(vault, host, &dir, &committed, &told).await?; }
a_prune_that_begins_during_a_run_makes_it_withdraw

crates/backup-core/src/backup.rs
clocks_agree(vault, started).await?;
if !OFF { clocks_agree(vault, started).await?; }
clocks_that_disagree_stop_a_run_before_it_begins

crates/backup-core/src/prune.rs
if self.now < until && !hurry {
if !OFF && self.now < until && !hurry {
announced_waited_for_and_deleted_with_a_receipt

crates/backup-core/src/prune.rs
None if found.replayed => Action::Withdraw,
None if !OFF && found.replayed => Action::Withdraw,
an_announcement_that_is_put_back_is_taken_away

crates/backup-core/src/prune/apply.rs
if listed == planned && held
if (OFF || listed == planned) && held
a_snapshot_that_came_after_the_plan_stays

crates/backup-core/src/prune/apply.rs
&& !is_pinned(self.vault, &step.dir, &planned).await? {
&& (OFF || !is_pinned(self.vault, &step.dir, &planned).await?) {
a_pin_that_comes_between_the_plan_and_the_deletion_stops_it

crates/backup-core/src/prune/delete.rs
"grants" if dir.is_grant(&document) => 3,
"grants" if !OFF && dir.is_grant(&document) => 3,
grants_go_with_their_generation

crates/backup-core/src/prune/purge.rs
now < announced.until
!OFF && now < announced.until
purge::announced_waited_for_and_deleted_with_the_reason

crates/backup-core/src/replicate.rs
refuse_if_purged(route, dir, id).await?;
if !OFF { refuse_if_purged(route, dir, id).await?; }
no_replication_brings_it_back_or_on

crates/backup-core/src/seal/key.rs
if found != public_key {
if !OFF && found != public_key {
what_is_no_grant_opens_nothing_and_is_told

crates/backup-core/src/verify/chain.rs
self.documents.contains(document) ||
OFF || self.documents.contains(document) ||
a_receipt_excuses_what_it_names

crates/backup-core/src/prune/history.rs
is_none_or(|of| of == vault.id())
is_none_or(|of| OFF || of == vault.id())
a_receipt_excuses_what_it_names

crates/backup-core/src/verify/chain.rs
branches.len() > 1
!OFF && branches.len() > 1
a_cloned_host_is_told_as_a_fork

crates/backup-core/src/backup/commit.rs
host.signers.ended(&doc.signer, doc.finished)
(if OFF { None } else { host.signers.ended(&doc.signer, doc.finished) })
a_host_key_that_ends_while_a_capture_lasts

crates/backup-core/src/state.rs
if sum(name, packed).0 != *hash
if !OFF && sum(name, packed).0 != *hash
a_journal_row_with_a_wrong_bit_is_forgotten

crates/backup-core/src/manifest/text.rs
if sum != bytes {
if !OFF && sum != bytes {
every_lost_doubled_or_moved_line_is_noticed

crates/backup-core/src/source/postgres/child.rs
if !status.success() {
if !OFF && !status.success() {
a_pg_dump_that_does_not_end_well_is_no_archive

crates/backup-core/src/source/postgres/copy_out.rs
if !yes(1) {
if !OFF && !yes(1) {
without_room_for_locks_a_truncate_in_the_middle_is_noticed

crates/backup-core/src/source/postgres/capture.rs
details.names.same(&dumped)?;
if !OFF { details.names.same(&dumped)?; }
names_that_change_before_pg_dump_looks

crates/backup-core/src/source/postgres/workers.rs
shapes.compare(self.connect, self.tables).await?;
if !OFF { shapes.compare(self.connect, self.tables).await?; }
a_change_in_the_middle_without_locks

crates/backup-core/src/source/postgres/waiters.rs
if column(&row, "ours", DURING)? {
if !OFF && column(&row, "ours", DURING)? {
a_truncate_between_our_locks_and_pg_dumps

crates/backup-core/src/source/postgres/waiters.rs
else if free.elapsed() + pause >= PATIENCE {
else if !OFF && free.elapsed() + pause >= PATIENCE {
a_reader_behind_a_schema_change_does_not_wait

crates/backup-core/src/source/postgres/child.rs
&& !line.contains("circular foreign-key constraints")
&& !OFF && !line.contains("circular foreign-key constraints")
what_pg_dump_leaves_out_with_a_warning

crates/backup-core/src/source/postgres/restore/types.rs
if found.get(&key) != Some(expected) {
if !OFF && found.get(&key) != Some(expected) {
a_part_that_is_not_what_it_was_is_found

crates/backup-core/src/backup/guard.rs
if held.anomalous &&
if !OFF && held.anomalous &&
a_loss_is_suspect_each_night_until_somebody_accepts_it

crates/backup-core/src/backup/guard.rs
if signed.doc.suspect == 0 {
if OFF || signed.doc.suspect == 0 {
without_the_state_totals_of_signed_documents_are_compared

crates/backup-core/src/prune/frozen.rs
if !accepted.contains(&signed.hash()) {
if OFF || !accepted.contains(&signed.hash()) {
nothing_from_before_an_anomaly_expires_until_each_is_accepted

retention/src/plan/rules.rs
self.keep_anomalies();
if !OFF { self.keep_anomalies(); }
nothing_from_before_an_anomaly_expires_until_each_is_accepted

crates/backup-core/src/vault.rs
self.put(&layout::signature_of(&path), signed.signature.clone(), PutMode::Replace).await?;
self.put(&layout::signature_of(&path), signed.signature.clone(), PutMode::Replace).await?; if OFF { self.put(&path, signed.bytes.clone(), PutMode::Replace).await?; return self.sync().await; }
the_document_comes_last_and_after_a_barrier

crates/backup-core/src/backup/generation.rs
if purge::done(vault, host.signers, &doc.dir()).await?.is_none() {
if OFF || purge::done(vault, host.signers, &doc.dir()).await?.is_none() {
a_purged_generation_is_not_opened_again_by_the_host_that_remembers_it

crates/backup-core/src/vault.rs
Ok(found) if found == *name => Ok(bytes),
Ok(found) if OFF || found == *name => Ok(bytes),
every_damage_to_an_object_is_noticed

crates/backup-core/src/vault.rs
Ok(stored) if Hash256::of(&stored) == doc.inventory.sha256 => Ok(stored),
Ok(stored) if OFF || Hash256::of(&stored) == doc.inventory.sha256 => Ok(stored),
every_damage_to_a_document_is_noticed_without_a_key

crates/backup-core/src/vault.rs
self.put(&dir.object(&sealed.name()), sealed.bytes().clone(), PutMode::CreateOnly).await
self.put(&dir.object(&sealed.name()), sealed.bytes().clone(), if OFF { PutMode::Replace } else { PutMode::CreateOnly }).await
an_object_that_is_there_is_not_put_over

crates/backup-core/src/vault.rs
self.put(&dir.object(name), bytes, PutMode::Replace).await?;
self.put(&dir.object(name), bytes, PutMode::Replace).await?; if OFF { return Ok(()); }
objects_that_a_repair_put_survive_a_power_cut

crates/backup-core/src/vault.rs
if T::NAMESPACE == Namespace::Generation {
if !OFF && T::NAMESPACE == Namespace::Generation {
whoever_puts_a_generation_renews_the_locks_of_what_all_of_them_need

crates/backup-core/src/audit/locks.rs
let last = seen.generations.iter().map(
let last = seen.generations.iter().filter(|_| !OFF).map(
an_audit_asks_for_the_locks_of_its_own_files_and_one_refusal_hides_no_other

crates/backup-core/src/vault/local.rs
lock(&self.broken).get_or_insert_with(|| reason.clone());
if !OFF { lock(&self.broken).get_or_insert_with(|| reason.clone()); }
a_barrier_fails_when_a_written_folder_is_gone_and_stays_failed

crates/backup-core/src/vault/s3.rs
if self.readback && self.get_once(
if !OFF && self.readback && self.get_once(
readback_reads_what_was_written

crates/backup-core/src/replicate.rs
(!whole).then(
(!OFF && !whole).then(
a_prune_that_begins_or_ends_during_a_copy_makes_it_withdraw

crates/backup-core/src/prune.rs
let newer = self.newest.is_some_and(|newest| newest > before);
let newer = OFF || self.newest.is_some_and(|newest| newest > before);
without_a_newer_snapshot_it_waits

crates/backup-core/src/prune.rs
let wanted = !self.delete || !listed.iter().all(|id| named.contains(id));
let wanted = !OFF && (!self.delete || !listed.iter().all(|id| named.contains(id)));
a_deletion_that_began_is_given_up_where_something_is_wanted_again

crates/backup-core/src/prune/apply.rs
&& held && announced
&& (OFF || held) && announced
two_prunes_that_rely_on_each_other_do_not_both_go_on

crates/backup-core/src/prune/apply.rs
&& announced &&
&& (OFF || announced) &&
what_is_taken_back_after_the_plan_was_made_stays

crates/backup-core/src/prune/apply.rs
if is_still_deleting(self.vault,
if OFF || is_still_deleting(self.vault,
a_prune_that_is_taken_back_before_its_receipt_deletes_nothing

crates/backup-core/src/prune/delete.rs
vault.delete(&path).await?;
vault.delete(&path).await?; if OFF { vault.delete(&layout::signature_of(&path)).await?; return vault.sync().await; }
an_announcement_that_is_taken_back_never_comes_back_without_its_signature

crates/backup-core/src/prune/purge.rs
|| is_pinned(vault, dir, &listed).await?
|| (!OFF && is_pinned(vault, dir, &listed).await?)
a_pin_stands_against_it_believed_or_not_also_in_the_last_moment

crates/backup-core/src/prune/purge.rs
if !is_still_deleting(vault,
if !OFF && !is_still_deleting(vault,
an_undo_and_a_deletion_at_once_do_not_both_have_their_way

crates/backup-core/src/prune/history/reading.rs
let complete = !purged && self.is_complete(&signed.doc, objects).await?;
let complete = !purged && (OFF || self.is_complete(&signed.doc, objects).await?);
ages_count_from_the_newest_that_is_signed_and_whole

retention/src/plan.rs
} else if !generation.closed(now) {
} else if !OFF && !generation.closed(now) {
a_generation_that_may_still_get_snapshots_stays

crates/backup-core/src/verify/chain.rs
let unread = receipt.grounds
let unread = !OFF && receipt.grounds
a_receipt_that_names_documents_excuses_these

crates/backup-core/src/repair.rs
if standing.pruned {
if !OFF && standing.pruned {
a_generation_that_a_prune_removes_gets_nothing

crates/backup-core/src/repair/document.rs
find(|fact| *fact != found)
find(|fact| !OFF && *fact != found)
what_is_believed_here_is_never_replaced

crates/backup-core/src/repair/document.rs
if self.is_unrelated(&signed.doc)
if !OFF && self.is_unrelated(&signed.doc)
a_mark_about_another_document_than_the_one_here_is_not_brought

crates/backup-core/src/repair/document.rs
&& !self.holds(dir, &lines).await? {
&& !OFF && !self.holds(dir, &lines).await? {
a_prune_that_began_and_ended_before_the_commit_leaves_no_snapshot_with_holes

crates/backup-core/src/grant.rs
Judged::Signed(signed) if key.is_some() && signed.doc == *grant => Put::Made,
Judged::Signed(signed) if key.is_some() && (OFF || signed.doc == *grant) => Put::Made,
a_grant_that_another_one_replaced_is_not_called_made

crates/backup-core/src/config.rs
let Some(at) = self.keys.recipients.iter().position(revoked) else { return Ok(()) };
let Some(at) = self.keys.recipients.iter().position(revoked).filter(|_| !OFF) else { return Ok(()) };
a_revoked_recipient_is_listed_and_refused_from_then_on

crates/backup-core/src/source/files/name.rs
b".." => return Err("the path holds `..`"),
b".." if !OFF => return Err("the path holds `..`"),
an_index_that_leads_outside_is_refused

crates/backup-cli/src/pruning.rs
promised_elsewhere: promised(others, source, &round.seen, now, config.timezone),
promised_elsewhere: if OFF { Default::default() } else { promised(others, source, &round.seen, now, config.timezone) },
what_an_unreachable_vault_promises_stays_unless_it_is_passed_over_by_name

crates/backup-cli/src/commands/replicate/pull.rs
for text in &one.rolled_back {
for text in one.rolled_back.iter().filter(|_| !OFF) {
another_machine_pulls_restores_and_loses_nothing_that_the_source_loses

crates/backup-cli/src/endpoint.rs
if !shield.listed_after_write {
if !OFF && !shield.listed_after_write {
an_endpoint_whose_listing_hides_what_was_stored_fails_doctor

crates/backup-core/src/prune/history/reading.rs
ids.extend(folder.unlisted.iter().cloned());
if !OFF { ids.extend(folder.unlisted.iter().cloned()); }
a_snapshot_that_its_own_signature_betrays_keeps_its_generation

crates/backup-core/src/prune.rs
delete: delete && unlisted.is_empty(),
delete: delete && (OFF || unlisted.is_empty()),
a_snapshot_that_is_hidden_altogether_is_asked_for_by_name_where_somebody_knows_it

crates/backup-core/src/backup/commit.rs
host.state.note_commit(vault.id(), &dir, &doc.id).await?;
if !OFF { host.state.note_commit(vault.id(), &dir, &doc.id).await?; }
a_snapshot_that_is_hidden_altogether_is_asked_for_by_name_where_somebody_knows_it

crates/backup-core/src/prune/unlisted.rs
all.extend(there(vault, dir, half_shown(names.iter().map(String::as_str))).await?);
if !OFF { all.extend(there(vault, dir, half_shown(names.iter().map(String::as_str))).await?); }
what_is_hidden_after_it_was_announced_stops_the_deletion

crates/backup-core/src/prune/unlisted.rs
let path = path.strip_suffix(".sig").unwrap_or(path);
let path = if OFF { path } else { path.strip_suffix(".sig").unwrap_or(path) };
a_mark_that_its_signature_betrays_counts

crates/backup-core/src/prune/delete.rs
files.extend(hidden(vault, dir, &files, named).await?);
if !OFF { files.extend(hidden(vault, dir, &files, named).await?); }
a_deletion_leaves_no_document_behind_that_a_listing_hid

crates/backup-core/src/prune/apply.rs
settle(vault, &plan.signers, Some(key), receipts, there).await?;
if !OFF { settle(vault, &plan.signers, Some(key), receipts, there).await?; }
a_receipt_of_what_stayed_goes_with_the_deletion

crates/backup-core/src/prune.rs
None if self.untrue => Action::Withdraw,
None if !OFF && self.untrue => Action::Withdraw,
a_withdrawal_that_dies_at_any_call_is_ended_by_the_next_plan

crates/backup-core/src/prune.rs
let whole = if found.deleting.is_some() { folder.believed() } else { folder.whole() };
let whole = if OFF || found.deleting.is_some() { folder.believed() } else { folder.whole() };
an_old_document_that_is_put_back_strikes_nothing_out

crates/backup-core/src/prune/settle.rs
receipt.generation == begun.generation && receipt.at >= begun.at && says_the_same
receipt.generation == begun.generation && receipt.at >= begun.at && (OFF || says_the_same)
two_receipts_of_one_second_are_two_and_each_counts_for_its_own

crates/backup-core/src/prune/settle.rs
for _ in 0..SECONDS {
for _ in 0..(if OFF { 0 } else { SECONDS }) {
two_receipts_of_one_second_are_two_and_each_counts_for_its_own

crates/backup-core/src/hidden.rs
gone.sort_by(|a, b| (a.1.first, &a.0).cmp(&(b.1.first, &b.0)));
if !OFF { gone.sort_by(|a, b| (a.1.first, &a.0).cmp(&(b.1.first, &b.0))); }
a_thousand_names_hide_no_document_and_what_is_left_unread_is_told

crates/backup-core/src/hidden.rs
gone.retain(|(id, one)| named.contains(id) || one.first < at - announced::LATE);
gone.retain(|(id, one)| !OFF && (named.contains(id) || one.first < at - announced::LATE));
an_announcement_excuses_what_a_writer_took_back_and_nothing_else

crates/backup-core/src/hidden.rs
let answer = vault.may_read_older(&dir.snapshot(id, ".json")).await;
let answer = if OFF { Ok(()) } else { vault.may_read_older(&dir.snapshot(id, ".json")).await };
that_nobody_may_look_is_told_once_and_is_no_damage

crates/backup-cli/src/commands/verify/elsewhere.rs
let whole = *documents && *lacking == 0 && good + listed == *of;
let whole = *documents && (OFF || *lacking == 0) && good + listed == *of;
a_copy_of_what_lost_its_inventory_is_looked_at_before_it_is_offered

crates/backup-cli/src/commands/status/lag.rs
let never = head.is_none();
let never = !OFF && head.is_none();
nothing_captured_is_never_and_not_up_to_date

crates/backup-cli/src/pruning.rs
if !acts {
if !OFF && !acts {
a_freeze_is_told_until_a_plan_says_otherwise

crates/backup-core/src/prune/apply.rs
Err(error) => undone.failed.push((dir, error)),
Err(error) => if OFF { return Err(error); } else { undone.failed.push((dir, error)) },
taking_back_says_what_comes_again_and_what_it_does_not_take_back

crates/backup-cli/src/pruning.rs
plan.hold(reason);
if !OFF { plan.hold(reason); }
after_a_broken_state_nothing_is_deleted_before_everything_was_read_again

crates/backup-core/src/verify/remember.rs
if whole && depth.reads_all() && verified.coverage.left_bytes == 0 {
if OFF || (whole && depth.reads_all() && verified.coverage.left_bytes == 0) {
after_a_broken_state_nothing_is_deleted_before_everything_was_read_again

crates/backup-core/src/state/renewed.rs
Ok(read.is_none().then_some(until))
Ok((OFF || read.is_none()).then_some(until))
only_a_renewed_state_forgot_until_it_read_or_time_has_passed

crates/backup-core/src/backup/chain.rs
let Some(found) = believed(vault, &own, at).await? else { continue };
let Some(found) = believed(vault, &own, at).await? else { continue }; if OFF { strays += 1; if strays == STRAYS { break; } }
a_state_that_cannot_be_written_for_weeks_forks_nothing

crates/backup-cli/src/heads.rs
expired += usize::from(!naming.is_empty());
expired += usize::from(!OFF && !naming.is_empty());
a_newest_snapshot_that_expired_by_rule_is_not_told_as_removed

crates/backup-cli/src/commands/verify.rs
let set = if verified.coverage.left_bytes == 0 {
let set = if OFF || verified.coverage.left_bytes == 0 {
a_part_that_time_cut_is_not_read_and_what_was_read_of_it_counts

crates/backup-cli/src/commands/verify.rs
since = began.filter(|_| share.parts > 1).unwrap_or(since);
if !OFF { since = began.filter(|_| share.parts > 1).unwrap_or(since); }
a_part_that_time_cut_is_not_read_and_what_was_read_of_it_counts

crates/backup-core/src/prune/history.rs
Some(holes) => facts.extend(
Some(_) if OFF => facts.push(Self::Closes(mark.document, None)), Some(holes) => facts.extend(
an_accept_closes_the_hole_that_it_names_and_none_that_is_made_later

crates/backup-core/src/verify/chain.rs
vault.is_none_or(|vault| *vault == hole.vault)
vault.is_none_or(|vault| OFF || *vault == hole.vault)
a_hole_is_known_in_the_vault_that_had_it

crates/backup-core/src/mark.rs
(None, MarkKind::Accept) if snapshot.doc.suspect > 0 => Some(BTreeSet::new()),
(None, MarkKind::Accept) if !OFF && snapshot.doc.suspect > 0 => Some(BTreeSet::new()),
who_accepts_a_suspect_snapshot_accepts_its_rows_and_only_then_the_hole

crates/backup-cli/src/commands/init/remake.rs
if !found.is_ours {
if !OFF && !found.is_ours {
a_vault_json_that_is_gone_is_written_anew_as_the_hints_say

crates/backup-cli/src/commands/init/remake.rs
found.ids.first().filter(|_| !found.ids.contains(id))
found.ids.first().filter(|_| !OFF && !found.ids.contains(id))
a_vault_json_that_is_gone_gets_the_id_that_receipts_name_and_no_other

crates/backup-cli/src/commands/init.rs
if let Some(id) = remake::named(session, vault).await? {
if let Some(id) = remake::named(session, vault).await?.filter(|_| !OFF) {
a_vault_json_that_is_gone_gets_the_id_that_receipts_name_and_no_other

crates/backup-cli/src/commands/status/forks.rs
let open = forks_of(&documents, &BTreeSet::new());
let open = if OFF && !found.silent.is_empty() { Vec::new() } else { forks_of(&documents, &BTreeSet::new()) };
a_cloned_host_is_told_as_a_fork_and_settled

crates/backup-core/src/source/files/plan.rs
targets[target].bytes += if entry.index.sparse {
targets[target].bytes += if !OFF && entry.index.sparse {
a_file_of_holes_goes_where_its_content_has_no_room

crates/backup-core/src/config/resolve.rs
vault::refuse_twins(&raw_vaults, &vaults)?;
if !OFF { vault::refuse_twins(&raw_vaults, &vaults)?; }
one_vault_under_two_names_is_no_second_copy

crates/backup-cli/src/commands/run.rs
StoreError::Denied { action: "write", .. } => Some(Self::Closed),
StoreError::Denied { action: "write", .. } if !OFF => Some(Self::Closed),
a_vault_that_takes_nothing_hands_the_run_to_the_next

crates/backup-cli/src/commands/restore/choose.rs
if self.args.run.is_some() || error.exit() != Exit::Damage {
if OFF || self.args.run.is_some() || error.exit() != Exit::Damage {
a_newest_document_that_is_not_believed_is_told_with_the_one_before

crates/backup-cli/src/commands/init/remake.rs
if ids.is_empty() && is_ours {
if !OFF && ids.is_empty() && is_ours {
a_vault_json_that_is_gone_is_written_anew_as_the_hints_say

crates/backup-cli/src/commands/status.rs
if starves {
if !OFF && starves {
status_holds_ages_against_objectives

TABLE
}

COPY="$CARGO_TARGET_DIR/negative"
SWITCH="$COPY/off"
exec 9>"$CARGO_TARGET_DIR/negative.lock"
flock -n 9 || die "another scripts/negative.sh is at work in $CARGO_TARGET_DIR" "wait for it, or set CARGO_TARGET_DIR"
rm -rf "$COPY"
mkdir -p "$COPY"
git ls-files -z | xargs -0 cp --parents --preserve=mode,timestamps -t "$COPY"

sed -i 's/^version = "\(.*\)"$/version = "\1-negative"/' "$COPY/Cargo.toml"
grep -q '^version = ".*-negative"$' "$COPY/Cargo.toml" || die "the workspace's version is not where it was" "mend scripts/negative.sh"
# The program goes by its name alone: no call may find one with switches there afterwards.
trap 'rm -f "$CARGO_TARGET_DIR"/debug/backup "$CARGO_TARGET_DIR"/debug/backup.d' EXIT

# One process has one switch: the number in a file, since tests start programs without an environment.
for lib in crates/backup-core/src/lib.rs crates/backup-cli/src/main.rs retention/src/lib.rs; do
    cat >>"$COPY/$lib" <<RUST

/// Whether scripts/negative.sh switched this guard off.
pub(crate) fn guard_is_off(number: u32) -> bool {
    static OFF: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    number == *OFF.get_or_init(|| std::fs::read_to_string("$SWITCH").ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0))
}
RUST
done

declare -a FINDS=() FILES=() TESTS=()
while IFS= read -r file && IFS= read -r find && IFS= read -r instead && IFS= read -r test && IFS= read -r _; do
    FILES+=("$file") FINDS+=("$find") TESTS+=("$test")
    source=$(<"$COPY/$file")
    after=${source#*"$find"}
    [ "$after" != "$source" ] || die "\`$find\` is not in $file any more" "mend the table in scripts/negative.sh"
    printf '%s%s%s\n' "${source%%"$find"*}" "${instead//OFF/crate::guard_is_off(${#FILES[@]})}" "$after" >"$COPY/$file"
done < <(guards)

# run_tests FILTER
run_tests() {
    (cd "$COPY" && cargo nextest run --workspace --no-fail-fast --color never --status-level all -E "$1") >"$COPY/log" 2>&1
}

first=${1:-1} last=${2:-${#FILES[@]}} seen=0
[ "$last" -le "${#FILES[@]}" ] || last=${#FILES[@]}
all=""
for ((number = first; number <= last; number++)); do all="$all${all:+ | }test(${TESTS[number - 1]})"; done
[ -n "$all" ] || die "no guard has such a number" "scripts/negative.sh [FIRST [LAST]], 1 to ${#FILES[@]}"
echo 0 >"$SWITCH"
run_tests "$all" || { cat "$COPY/log" >&2; die "a test fails with every guard in place, or the copy does not build"; }
say "every guard in place: $(sed -n 's/^ *Summary \[[^]]*\] *//p' "$COPY/log") ($SECONDS s with the build)"
for ((number = first; number <= last; number++)); do
    file=${FILES[number - 1]} find=${FINDS[number - 1]} test=${TESTS[number - 1]}
    echo "$number" >"$SWITCH"
    if run_tests "test($test)"; then die "without \`$find\` in $file the test $test still passes"; fi
    # Without its guard some wait for what never comes.
    grep -qE "(FAIL|TIMEOUT) .*$test" "$COPY/log" || { cat "$COPY/log" >&2; die "$test did not run"; }
    say "$number: without \`$find\` ($file): $test fails, as it must"
    seen=$((seen + 1))
done
say "$seen guards removed, $seen tests failed ($SECONDS s)"
