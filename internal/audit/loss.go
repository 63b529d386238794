package audit

import (
	"fmt"
	"strconv"
)

// Gap is the operation of the record that begins what follows a loss: the trail does not hold the
// records that it should hold. Its outcome says what was found.
const Gap = "audit.gap"

// Adopted is the operation of the record that Resume appends to a trail that was written without a
// key.
const Adopted = "audit.adopted"

// Loss is the result of comparing a trail with its head. It is a stable token: the outcome of a
// [Gap] record.
type Loss string

// The losses. lossText explains each.
const (
	LossEmptied    Loss = "emptied"
	LossTruncated  Loss = "truncated"
	LossReplaced   Loss = "replaced"
	LossForked     Loss = "forked"
	LossDamaged    Loss = "damaged"
	LossBeginning  Loss = "beginning-missing"
	LossHead       Loss = "head-missing"
	LossAnotherKey Loss = "another-key"
	LossWhileInUse Loss = "taken-away"
	LossForeign    Loss = "foreign-file"

	adviceAfterLoss = "keep what is left of the trail as evidence, find out who can write to its directory, " +
		"and compare with the copies in the sinks"
)

var lossText = map[Loss]string{
	LossEmptied: "the trail's directory holds no record",
	LossTruncated: "the trail ends before the last record that the store knows of: records were cut off, " +
		"or an older copy was restored",
	LossReplaced: "the trail holds another record in the place of the last one that the store knows of: " +
		"it was rewritten",
	LossForked:     "the records behind the last one that the store knows of were not written by the server",
	LossDamaged:    "the end of the trail cannot be read",
	LossBeginning:  "records are missing from the beginning of the trail, and retention did not remove them",
	LossHead:       "the store has lost what it knew of this trail",
	LossAnotherKey: "the trail was written under the key of another store",
	LossWhileInUse: "the segment in use was taken away or cut while the server ran",
	LossForeign: "the trail's directory holds a file that has the name of a segment and that the server " +
		"cannot have written",
}

// LossError means that a strict trail was not resumed.
type LossError struct {
	Loss  Loss
	found string
}

func (e *LossError) Error() string {
	return fmt.Sprintf("audit: %s (%s): %s; then start once without audit-strict",
		lossText[e.Loss], e.found, adviceAfterLoss)
}

// adoptedRecord returns the first record of a trail that has a key and follows records without
// MACs.
func adoptedRecord(node string, end link) Record {
	return Record{
		Phase:         Call,
		PrincipalType: "system",
		Operation:     Adopted,
		Outcome:       "ok",
		Note:          "from here on the records have a MAC, and the store keeps the head of the trail",
		Details: Details{
			{"node", node},
			{"last_seq", strconv.FormatUint(end.seq, 10)},
			{"last_hash", end.hash},
		},
	}
}

// gapRecord returns the record that begins what follows a loss. end is the last record that can be
// read, and head what the store has kept.
func gapRecord(loss Loss, found, node string, end link, head Head) Record {
	return Record{
		Phase:         Call,
		PrincipalType: "system",
		Operation:     Gap,
		Outcome:       string(loss),
		Note:          lossText[loss],
		Details: Details{
			{"node", node},
			{"found", found},
			{"found_seq", strconv.FormatUint(end.seq, 10)},
			{"found_hash", end.hash},
			{"stored_seq", strconv.FormatUint(head.Seq, 10)},
			{"stored_hash", head.Hash},
		},
	}
}
