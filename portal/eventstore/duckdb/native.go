package duckdb

import (
	"errors"
	"fmt"
	"time"

	duckdb "github.com/duckdb/duckdb-go/v2"
	"github.com/duckdb/duckdb-go/v2/mapping"
)

// native is the writing connection, in DuckDB's own interface: the driver for
// database/sql takes rows as boxed values, one call into C for each, which cost
// more than the storing itself. It is used by one goroutine.
type native struct {
	db   mapping.Database
	conn mapping.Connection
}

// connectNative connects to the database that a connector of this process has
// open already, with the same options.
func connectNative(path string, options map[string]string) (*native, error) {
	var config mapping.Config
	if mapping.CreateConfig(&config) == mapping.StateError {
		return nil, errors.New("DuckDB makes no configuration")
	}
	defer mapping.DestroyConfig(&config)
	for name, value := range options {
		if mapping.SetConfig(config, name, value) == mapping.StateError {
			return nil, fmt.Errorf("DuckDB has no option %s=%s", name, value)
		}
	}
	// The connector sets it too, and all users of a database must agree.
	if mapping.SetConfig(config, "duckdb_api", "go") == mapping.StateError {
		return nil, errors.New("DuckDB has no option duckdb_api")
	}
	n := &native{}
	var message string
	if mapping.GetOrCreateFromCache(duckdb.GetInstanceCache(), path, &n.db, config, &message) == mapping.StateError {
		mapping.Close(&n.db)
		return nil, errors.New(message)
	}
	if mapping.Connect(n.db, &n.conn) == mapping.StateError {
		mapping.Close(&n.db)
		return nil, errors.New("DuckDB gives no connection")
	}
	return n, nil
}

func (n *native) close() {
	mapping.Disconnect(&n.conn)
	mapping.Close(&n.db)
}

// exec runs a statement. Arguments are strings of UTF-8, uint64 and time.Time.
func (n *native) exec(query string, args ...any) error {
	var statement mapping.PreparedStatement
	defer mapping.DestroyPrepare(&statement)
	if mapping.Prepare(n.conn, query, &statement) == mapping.StateError {
		return errors.New(mapping.PrepareError(statement))
	}
	for i, arg := range args {
		state, at := mapping.StateError, mapping.IdxT(i+1)
		switch v := arg.(type) {
		case string:
			state = mapping.BindVarchar(statement, at, v)
		case uint64:
			state = mapping.BindUInt64(statement, at, v)
		case time.Time:
			state = mapping.BindTimestamp(statement, at, mapping.NewTimestamp(v.UnixMicro()))
		}
		if state == mapping.StateError {
			return fmt.Errorf("argument %d of %.60q, a %T, is refused", i+1, query, arg)
		}
	}
	var result mapping.Result
	defer mapping.DestroyResult(&result)
	if mapping.ExecutePrepared(statement, &result) == mapping.StateError {
		return errors.New(mapping.ResultError(&result))
	}
	return nil
}

// appendChunks appends what fill puts into the table's chunk, until fill says that
// nothing is left, within the transaction that is open.
func (n *native) appendChunks(name string, columns []string, c *chunk, fill func() (rows int)) (err error) {
	var a mapping.Appender
	if mapping.AppenderCreateExt(n.conn, "", "", name, &a) == mapping.StateError {
		err = errors.New(mapping.AppenderError(a))
		mapping.AppenderDestroy(&a)
		return err
	}
	defer func() {
		if err != nil {
			// What is left must not be flushed into the table.
			mapping.AppenderClear(a)
		}
		if mapping.AppenderDestroy(&a) == mapping.StateError && err == nil {
			err = errors.New("DuckDB does not close the appender")
		}
	}()
	for _, column := range columns {
		if mapping.AppenderAddColumn(a, column) == mapping.StateError {
			return fmt.Errorf("column %s: %s", column, mapping.AppenderError(a))
		}
	}
	for {
		// Before it is filled: after an error, too, the room is free.
		c.text.reset()
		rows := fill()
		if rows == 0 {
			break
		}
		mapping.DataChunkSetSize(c.chunk, mapping.IdxT(rows))
		if mapping.AppendDataChunk(a, c.chunk) == mapping.StateError {
			return errors.New(mapping.AppenderError(a))
		}
	}
	if mapping.AppenderFlush(a) == mapping.StateError {
		return errors.New(mapping.AppenderError(a))
	}
	return nil
}
