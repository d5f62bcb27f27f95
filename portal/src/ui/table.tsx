import type { ReactNode } from "react";

export interface Column<Row> {
  key: string;
  header: string;
  cell: (row: Row) => ReactNode;
  align?: "start" | "end";
  /** On narrow screens, a line of its own without its header: for a name or a button. */
  wide?: boolean;
}

interface TableProps<Row> {
  label: string;
  columns: Column<Row>[];
  rows: Row[];
  rowKey: (row: Row) => string;
  /** A last row, set off from the others, such as their sum. */
  foot?: Row;
}

/** A table of up to a few hundred rows. On narrow screens each row is a card with the headers as labels. */
export function Table<Row>({ label, columns, rows, rowKey, foot }: TableProps<Row>) {
  const cells = (row: Row) =>
    columns.map((column) => (
      <td
        key={column.key}
        data-align={column.align}
        data-label={column.header}
        data-wide={column.wide ? "" : undefined}
      >
        {column.cell(row)}
      </td>
    ));
  return (
    <div className="table-frame">
      <table className="table" aria-label={label}>
        <thead>
          <tr>
            {columns.map((column) => (
              <th key={column.key} scope="col" data-align={column.align}>
                {column.header}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={rowKey(row)}>{cells(row)}</tr>
          ))}
        </tbody>
        {foot !== undefined && (
          <tfoot>
            <tr>{cells(foot)}</tr>
          </tfoot>
        )}
      </table>
    </div>
  );
}
