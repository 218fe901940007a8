package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/bulwarkhq/bulwark/portal/store/sqlstore"
)

func databaseCopyCommand() *cobra.Command {
	return &cobra.Command{
		Use: "copy", Short: "Copy the control data of the data folder into an empty PostgreSQL database", Args: noArgs,
		Long: `Copies the file control.db of the data folder into the PostgreSQL database of
--database, in one transaction, while no portal runs with the folder. The file
stays as it is. Start the portal with --database afterwards.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := dataDir(cmd)
			if err != nil {
				return err
			}
			// The folder may be of a portal that was tried with PostgreSQL before.
			database, err := controlDatabase(cmd, dir, true)
			if err != nil {
				return err
			}
			if database == "" {
				return usage("--database postgres://USER@HOST[:PORT]/NAME is needed: the database to copy to")
			}
			unlock, err := lock(filepath.Join(dir, "serve.lock"), false)
			if err != nil {
				return err
			}
			defer unlock()
			var total int64
			err = sqlstore.CopyToPostgres(cmd.Context(), controlPath(dir), database, func(table string, rows int64) {
				total += rows
				fmt.Fprintf(cmd.OutOrStdout(), "%-20s %d\n", table, rows)
			})
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%d rows are copied. Start the portal with --database from now on; the file %s is not changed.\n", total, controlPath(dir))
			return nil
		},
	}
}
