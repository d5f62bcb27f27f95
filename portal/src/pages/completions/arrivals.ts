// How the list's loaded pages take in what was stored meanwhile.
//
// A completion's place is the moment its call came, but it is stored when its answer is complete: a slow
// call appears below a quick one that came after it. So each look goes a little further back than the
// newest row, and what it finds replaces that part of the list.

import type { InfiniteData } from "@tanstack/react-query";
import type { CompletionRow, List } from "../../api/types";

/** A call that takes longer than this to answer is found when the list is next read from its head. */
export const OVERLAP_SECONDS = 120;
/** Fewer than a page has: of a whole page, the older rows that are not loaded yet must not count as new ones. */
const OVERLAP_ROWS = 40;

export interface Page extends List<CompletionRow> {
  search_pending?: number;
}
export type Pages = InfiniteData<Page, string | undefined>;

/** The row above which rows may still appear: the newest that is old enough; undefined when none is. */
export function settledRow(rows: CompletionRow[]): string | undefined {
  const newest = rows[0];
  if (!newest) return undefined;
  const near = rows.slice(0, OVERLAP_ROWS + 1);
  const settled = near.find((row) => row.created_at < newest.created_at - OVERLAP_SECONDS);
  return settled?.id ?? near[OVERLAP_ROWS]?.id;
}

/** Which rows the head of the list has: a look is only worth as long as it is the same. */
export function headOf(rows: CompletionRow[]): string {
  return rows
    .slice(0, OVERLAP_ROWS)
    .map((row) => row.id)
    .join();
}

/** How many of the found rows are not in the list yet. */
export function countNew(rows: CompletionRow[], found: CompletionRow[]): number {
  const known = new Set(rows.map((row) => row.id));
  return found.filter((row) => !known.has(row.id)).length;
}

/** The pages with everything above `anchor` replaced by what was found there. */
export function withArrivals(pages: Pages, found: Page, anchor: string | undefined): Pages {
  const at = pages.pages.findIndex((page) => page.data.some((row) => row.id === anchor));
  const page = pages.pages[at];
  // Without the anchor, or when more came than one look shows, the list begins anew at its head.
  if (!page || found.has_more) return { pages: [found], pageParams: [undefined] };
  const kept = page.data.slice(page.data.findIndex((row) => row.id === anchor));
  return {
    pages: [{ ...page, data: [...found.data, ...kept] }, ...pages.pages.slice(at + 1)],
    pageParams: [undefined, ...pages.pageParams.slice(at + 1)],
  };
}

/** Which loaded rows are not stored any more, seeing what was found from one row down. */
export function goneOf(rows: CompletionRow[], found: Page, from: string): ReadonlySet<string> {
  const there = new Set(found.data.map((row) => row.id));
  const last = found.has_more ? (found.data.at(-1)?.id ?? from) : "";
  const asked = rows.filter((row) => row.id <= from && row.id >= last);
  return new Set(asked.map((row) => row.id).filter((id) => !there.has(id)));
}

/** The pages without some rows. */
export function without(pages: Pages, gone: ReadonlySet<string>): Pages {
  return {
    ...pages,
    pages: pages.pages.map((page) => ({ ...page, data: page.data.filter((row) => !gone.has(row.id)) })),
  };
}
