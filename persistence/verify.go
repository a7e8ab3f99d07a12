package persistence

const remedyCorrupt = "stop the node, keep the data directory for inspection, and restore a backup into a new one"
