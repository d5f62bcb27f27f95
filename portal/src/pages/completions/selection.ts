// Which rows are selected. Either rows by their ids, or everything that the filter matches.

import type { CompletionRow, Count } from "../../api/types";

export type Selection =
  | {
      kind: "ids";
      ids: ReadonlySet<string>;
      /** What was selected before the range that is being drawn. */
      before: ReadonlySet<string>;
      /** Where a range begins: the row that was last selected on its own. */
      anchor: string | null;
      /** Everything that matches was selected before: what is not loaded is not any more. */
      narrowed?: boolean;
    }
  | {
      kind: "all";
      count: Count;
      /** The id of the newest of them: rows that arrive later are not meant. */
      upTo: string;
    };

export type Deed =
  | { type: "toggle"; id: string; order: string[] }
  /** From the anchor to this row; where there is no anchor, from `from`. */
  | { type: "extend"; to: string; from: string; order: string[] }
  | { type: "these"; ids: string[] }
  | { type: "all"; count: Count; upTo: string }
  | { type: "gone"; ids: ReadonlySet<string> }
  | { type: "clear" };

const NONE: ReadonlySet<string> = new Set();
export const NOTHING: Selection = { kind: "ids", ids: NONE, before: NONE, anchor: null };

/** The selection after a deed; `order` is the ids of the rows as they are shown. */
export function select(selection: Selection, deed: Deed): Selection {
  switch (deed.type) {
    case "toggle":
      return toggled(explicit(selection, deed.order), deed.id);
    case "extend":
      return extended(explicit(selection, deed.order), deed.to, deed.from, deed.order);
    case "these": {
      const ids = new Set(deed.ids);
      return { kind: "ids", ids, before: ids, anchor: null };
    }
    case "all":
      return { kind: "all", count: deed.count, upTo: deed.upTo };
    case "gone":
      return without(selection, deed.ids);
    case "clear":
      return NOTHING;
  }
}

export function isSelected(selection: Selection, row: Pick<CompletionRow, "id">): boolean {
  return selection.kind === "all" ? row.id <= selection.upTo : selection.ids.has(row.id);
}

export function isNothing(selection: Selection): boolean {
  return selection.kind === "ids" && selection.ids.size === 0;
}

type ByIds = Extract<Selection, { kind: "ids" }>;

/** Taking a row out of "all that match" leaves the rows that are loaded: the API has no "all but". */
function explicit(selection: Selection, order: string[]): ByIds {
  if (selection.kind === "ids") return selection;
  const ids = new Set(order.filter((id) => id <= selection.upTo));
  return { kind: "ids", ids, before: ids, anchor: null, narrowed: true };
}

function toggled(selection: ByIds, id: string): ByIds {
  const ids = new Set(selection.ids);
  if (!ids.delete(id)) ids.add(id);
  return { ...selection, ids, before: ids, anchor: id };
}

function extended(selection: ByIds, to: string, from: string, order: string[]): ByIds {
  const known = selection.anchor !== null && order.includes(selection.anchor);
  const anchor = known ? (selection.anchor as string) : from;
  const before = known ? selection.before : selection.ids;
  return { ...selection, ids: new Set([...before, ...between(order, anchor, to)]), before, anchor };
}

function between(order: string[], one: string, other: string): string[] {
  const [first = 0, last = 0] = [order.indexOf(one), order.indexOf(other)].sort((a, b) => a - b);
  return order.slice(Math.max(0, first), last + 1);
}

function without(selection: Selection, gone: ReadonlySet<string>): Selection {
  if (selection.kind === "all") return selection;
  const left = (ids: ReadonlySet<string>) => new Set([...ids].filter((id) => !gone.has(id)));
  return { ...selection, ids: left(selection.ids), before: left(selection.before) };
}
