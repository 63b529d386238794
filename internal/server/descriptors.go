package server

import (
	"fmt"

	"github.com/keyturn/keyturn/internal/conns"
)

const (
	// descriptorReserve is how many files the process keeps for itself: the store, the audit trail,
	// connections to targets, to event receivers and between nodes, and the listener of the metrics.
	descriptorReserve = 256
	// fewestConnections is how many a server must be able to take at least.
	fewestConnections = 128
	// mostConnections is how many it takes when nothing else is set: some 70 KB of memory each, when
	// they wait.
	mostConnections = 16_384
)

// maxConnections returns how many connections this process takes; wanted is the setting.
func maxConnections(wanted int) (int, error) {
	files, err := openFiles()
	if err != nil {
		return 0, fmt.Errorf("limit of open files: %w", err)
	}
	return connectionLimit(files, wanted)
}

// connectionLimit returns how many connections a process that may open so many files takes; wanted
// is what was set, 0 for nothing. Without the reserve, a flood of connections would end the store,
// which cannot go on without files.
func connectionLimit(files uint64, wanted int) (int, error) {
	if files < descriptorReserve+fewestConnections {
		return 0, fmt.Errorf("the process may open %d files, and at least %d are needed: %d for itself and %d for "+
			"connections; raise LimitNOFILE of the service or ulimit -n",
			files, descriptorReserve+fewestConnections, descriptorReserve, fewestConnections)
	}
	room := mostConnections
	if files < descriptorReserve+mostConnections {
		room = int(files - descriptorReserve)
	}
	switch {
	case wanted == 0:
		return room, nil
	case wanted < conns.Least:
		return 0, fmt.Errorf("max-connections must be at least %d, not %d", conns.Least, wanted)
	case uint64(wanted)+descriptorReserve > files:
		return 0, fmt.Errorf(
			"max-connections %d needs %d files, and the process may open %d; raise LimitNOFILE of the service or ulimit -n",
			wanted, wanted+descriptorReserve, files)
	}
	return wanted, nil
}
