#!/usr/bin/env bash
# A check that cannot fail is a defect: this removes one guard at a time from a copy of the sources and sees the test that
# names it fail. Takes some minutes; not part of the gate. Usage: scripts/negative.sh [FIRST [LAST]]
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib/say.sh
. scripts/lib/say.sh
# shellcheck source=scripts/lib/deps.sh
. scripts/lib/deps.sh
default_target_dir

# file | text to find (once) | what stands there instead | test that must fail
guards() {
    cat <<'TABLE'
crates/backup-core/src/pipeline/known.rs|if self.listed.binary_search(&line).is_err() {|if false {|only_what_a_listing_confirms_is_known
crates/backup-core/src/seal.rs|if found != *name {|if false {|altered_foreign_and_loose_objects_are_refused
crates/backup-core/src/signature.rs|if pinned.is_empty() && !self.fingerprints.contains(&fingerprint) {|if false {|only_a_pinned_key_in_the_right_namespace
crates/backup-core/src/vault.rs|if doc.path() != *path {|if false {|a_document_with_its_signature_at_another_path_is_not_believed
crates/backup-core/src/backup.rs|if now > deadline {|if false {|past_the_deadline_by_the_stores_clock_nothing_is_committed
crates/backup-core/src/backup.rs|withdraw_if_pruned(vault, host, &dir, &committed, &told).await?;||a_prune_that_begins_during_a_run_makes_it_withdraw
crates/backup-core/src/backup.rs|clocks_agree(vault, started).await?;||clocks_that_disagree_stop_a_run_before_it_begins
crates/backup-core/src/prune.rs|if self.now < until && !hurry {|if false {|announced_waited_for_and_deleted_with_a_receipt
crates/backup-core/src/prune.rs|None if found.replayed => Action::Withdraw,|None if false => Action::Withdraw,|an_announcement_that_is_put_back_is_taken_away
crates/backup-core/src/prune/apply.rs|if listed == planned && held|if held|a_snapshot_that_came_after_the_plan_stays
crates/backup-core/src/prune/apply.rs|&& !is_pinned(self.vault, &step.dir, &planned).await? {|{|a_pin_that_comes_between_the_plan_and_the_deletion_stops_it
crates/backup-core/src/prune/delete.rs|"grants" if dir.is_grant(&document) => 3,||grants_go_with_their_generation
crates/backup-core/src/prune/purge.rs|now < announced.until|false|purge::announced_waited_for_and_deleted_with_the_reason
crates/backup-core/src/replicate.rs|refuse_if_purged(route, dir, id).await?;||no_replication_brings_it_back_or_on
crates/backup-core/src/seal/key.rs|if found != public_key {|if false {|what_is_no_grant_opens_nothing_and_is_told
crates/backup-core/src/verify/chain.rs|branches.len() > 1|false|a_cloned_host_is_told_as_a_fork
crates/backup-core/src/backup.rs|host.signers.ended(&doc.signer, doc.finished)|None|a_host_key_that_ends_while_a_capture_lasts
crates/backup-core/src/state.rs|if sum(name, packed).0 != *hash|if false|a_journal_row_with_a_wrong_bit_is_forgotten
crates/backup-core/src/manifest/text.rs|if sum != bytes {|if false {|every_lost_doubled_or_moved_line_is_noticed
crates/backup-core/src/source/postgres/child.rs|if !status.success() {|if false {|a_pg_dump_that_does_not_end_well_is_no_archive
crates/backup-core/src/source/postgres/copy_out.rs|if !yes(1) {|if false {|without_room_for_locks_a_truncate_in_the_middle_is_noticed
crates/backup-core/src/source/postgres/capture.rs|details.names.same(&dumped)?;||names_that_change_before_pg_dump_looks
crates/backup-core/src/source/postgres/workers.rs|shapes.compare(self.connect, self.tables).await?;||a_change_in_the_middle_without_locks
crates/backup-core/src/source/postgres/deadlock.rs|> 0 {|> 9 {|a_truncate_between_our_locks_and_pg_dumps
crates/backup-core/src/source/postgres/restore/types.rs|if found.get(&key) != Some(expected) {|if false {|a_part_that_is_not_what_it_was_is_found
crates/backup-core/src/backup/guard.rs|if held.anomalous |if false |a_loss_is_suspect_each_night_until_somebody_accepts_it
crates/backup-core/src/backup/guard.rs|if signed.doc.suspect == 0 {|if true {|without_the_state_totals_of_signed_documents_are_compared
crates/backup-core/src/prune/frozen.rs|if !accepted.contains(&signed.hash()) {|if true {|nothing_from_before_an_anomaly_expires_until_each_is_accepted
retention/src/plan/rules.rs|self.keep_anomalies();||nothing_from_before_an_anomaly_expires_until_each_is_accepted
TABLE
}

COPY=$(mktemp -d)
trap 'rm -rf "$COPY"' EXIT
git ls-files -z | xargs -0 cp --parents -t "$COPY"
first=${1:-1} last=${2:-999} number=0 seen=0
while IFS='|' read -r file find instead test; do
    number=$((number + 1))
    [ "$number" -ge "$first" ] && [ "$number" -le "$last" ] || continue
    source=$(<"$file")
    after=${source#*"$find"}
    [ "$after" != "$source" ] || die "\`$find\` is not in $file any more" "mend the table in scripts/negative.sh"
    printf '%s%s%s\n' "${source%%"$find"*}" "$instead" "$after" >"$COPY/$file"
    if (cd "$COPY" && cargo nextest run --workspace --no-fail-fast -E "test($test)") >"$COPY/log" 2>&1; then
        die "without \`$find\` in $file the test $test still passes"
    fi
    grep -qE "FAIL .*$test" "$COPY/log" || { cat "$COPY/log" >&2; die "$test did not run"; }
    say "$number: without \`$find\` ($file): $test fails, as it must"
    cp "$file" "$COPY/$file"
    seen=$((seen + 1))
done < <(guards)
say "$seen guards removed, $seen tests failed"
