// The rows that are loaded: pages of older ones as the reader scrolls, and what arrives meanwhile.

import { keepPreviousData, useInfiniteQuery, useQueries, useQuery, useQueryClient } from "@tanstack/react-query";
import { useCallback, useEffect, useMemo, useRef, useState } from "react";
import { get } from "../../api/http";
import type { CompletionRow, Count, Facets, Filter } from "../../api/types";
import {
  countNew,
  goneOf,
  headOf,
  OVERLAP_SECONDS,
  type Page,
  type Pages,
  settledRow,
  withArrivals,
  without,
} from "./arrivals";
import { asked, COMPLETIONS, keyOf, withoutEach } from "./filter";

const PAGE_ROWS = 50;
const LARGEST_PAGE = 200;
/** Beyond so many rows the reader goes on from the last one's time. */
const MOST_ROWS = 5000;
const LOOK_MS = 1000;
const COUNTED_AGAIN_MS = 5000;
const CHECKED_AGAIN_MS = 15_000;
const CHECKED_ROWS = 100;
/** Conditions for which other values are counted; further ones are seldom, and each costs as much as the first. */
const MOST_OTHERS = 3;
const NOTHING_NEW: Page = { data: [], has_more: false };

/** The facets without a condition, by the name that it has in an address. */
export type OtherValues = ReadonlyMap<string, Facets | undefined>;

export interface Rows {
  rows: CompletionRow[];
  /** Nothing is known yet. */
  waiting: boolean;
  error: unknown;
  retry: () => void;
  /** The rows are those of the filter before. */
  stale: boolean;
  more: boolean;
  /** There are older ones, but as many are loaded as are kept. */
  full: boolean;
  loadMore: () => void;
  loadingMore: boolean;
  /** What has arrived and is not shown, because the reader is elsewhere in the list. */
  held: { count: number; atLeast: boolean };
  showHeld: () => void;
  searchPending: number;
}

/** The rows of a filter. While `hold` is true, new ones are counted, not shown. */
export function useRows(filter: Filter, hold: boolean): Rows {
  const key = useMemo(() => ["completions", "rows", keyOf(filter)], [filter]);
  const pages = useInfiniteQuery({
    queryKey: key,
    queryFn: ({ pageParam, signal }) =>
      get<Page>(asked(COMPLETIONS, filter, { limit: PAGE_ROWS, after: pageParam }), signal),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (last) => (last.has_more ? last.data.at(-1)?.id : undefined),
    placeholderData: keepPreviousData,
    // The looks below keep it up to date; asking again would ask for every page.
    staleTime: Number.POSITIVE_INFINITY,
    gcTime: 0,
  });
  const { isFetching, fetchNextPage, hasNextPage } = pages;
  const rows = useMemo(() => pages.data?.pages.flatMap((page) => page.data) ?? [], [pages.data]);
  const settled = pages.isSuccess && !pages.isPlaceholderData;
  const listedPending = pages.data?.pages[0]?.search_pending;
  const arrivals = useArrivals(filter, key, rows, settled, hold, listedPending);
  useGone(filter, key, settled);
  const full = rows.length >= MOST_ROWS && hasNextPage;
  const loadMore = useCallback(() => {
    if (!isFetching) fetchNextPage();
  }, [isFetching, fetchNextPage]);
  return {
    rows,
    waiting: pages.isPending,
    error: pages.error,
    retry: pages.isFetchNextPageError ? fetchNextPage : pages.refetch,
    stale: pages.isPlaceholderData,
    more: hasNextPage && !full && !pages.isFetchNextPageError,
    full,
    loadMore,
    loadingMore: pages.isFetchingNextPage,
    held: arrivals.held,
    showHeld: arrivals.show,
    searchPending: arrivals.searchPending ?? 0,
  };
}

/** Looks for new rows while the page is seen, and puts them on top unless they are to be held. */
function useArrivals(
  filter: Filter,
  key: string[],
  rows: CompletionRow[],
  ready: boolean,
  hold: boolean,
  listedPending: number | undefined,
) {
  const client = useQueryClient();
  const anchor = useAnchor(rows);
  const head = useMemo(() => headOf(rows), [rows]);
  const look = useQuery({
    queryKey: ["completions", "arrivals", keyOf(filter)],
    queryFn: async ({ signal }) => ({
      anchor,
      head,
      page: await get<Page>(asked(COMPLETIONS, filter, { limit: LARGEST_PAGE, before: anchor }), signal),
    }),
    enabled: ready,
    refetchInterval: LOOK_MS,
    gcTime: 0,
    // The rows are read first: nothing can be new until the first interval is over.
    initialData: { anchor, head, page: NOTHING_NEW },
    staleTime: LOOK_MS,
  });
  // What was found before the list changed, by a deletion say, might bring back what is gone.
  const found = ready && look.data.head === head ? look.data : undefined;
  const fresh = useMemo(() => (found ? countNew(rows, found.page.data) : 0), [rows, found]);
  const show = useCallback(() => {
    if (found) client.setQueryData<Pages>(key, (pages) => pages && withArrivals(pages, found.page, found.anchor));
  }, [client, key, found]);
  useEffect(() => {
    if (fresh && !hold) show();
  }, [fresh, hold, show]);
  useCountAgain(filter, ready ? head : null);
  const searchPending = look.data.page.search_pending ?? listedPending;
  useIndexed(filter, searchPending);
  return {
    held: { count: hold ? fresh : 0, atLeast: Boolean(found?.page.has_more) },
    show,
    searchPending,
  };
}

/** What was deleted elsewhere leaves the list: some loaded rows at a time are asked for again, from the top down and
 * from the top again. */
function useGone(filter: Filter, key: string[], ready: boolean): void {
  const client = useQueryClient();
  const next = useRef(0);
  useQuery({
    queryKey: ["completions", "check", keyOf(filter)],
    queryFn: async ({ signal }) => {
      const rows = client.getQueryData<Pages>(key)?.pages.flatMap((page) => page.data) ?? [];
      const from = rows[next.current] ?? rows[0];
      next.current = rows[next.current] ? next.current + CHECKED_ROWS : CHECKED_ROWS;
      if (!from) return null;
      const found = await get<Page>(asked(COMPLETIONS, { ...filter, up_to: from.id }, { limit: CHECKED_ROWS }), signal);
      const gone = goneOf(rows, found, from.id);
      if (!gone.size) return null;
      client.setQueryData<Pages>(key, (pages) => pages && without(pages, gone));
      for (const part of ["count", "facets"]) {
        client.invalidateQueries({ queryKey: ["completions", part, keyOf(filter)] });
      }
      return null;
    },
    enabled: ready,
    refetchInterval: CHECKED_AGAIN_MS,
    refetchOnWindowFocus: "always",
    gcTime: 0,
    // The rows have just been read.
    initialData: null,
    staleTime: CHECKED_AGAIN_MS,
  });
}

/** The row above which is looked: after a quiet while the newest itself. */
function useAnchor(rows: CompletionRow[]): string | undefined {
  const newest = rows[0]?.id;
  const storedAt = rows[0]?.created_at ?? 0;
  const [quietAt, setQuietAt] = useState<string>();
  useEffect(() => {
    // Never longer than from now on: the server's clock may be ahead.
    const left = Math.min(storedAt - Date.now() / 1000, 0) + OVERLAP_SECONDS;
    const timer = setTimeout(() => setQuietAt(newest), Math.max(left, 0) * 1000);
    return () => clearTimeout(timer);
  }, [newest, storedAt]);
  return newest !== undefined && quietAt === newest ? newest : settledRow(rows);
}

/** When the index has caught up, older rows may have come to match, too: all is asked again. */
function useIndexed(filter: Filter, pending: number | undefined): void {
  const client = useQueryClient();
  const key = keyOf(filter);
  const before = useRef({ key, pending });
  useEffect(() => {
    const behind = before.current.key === key && (before.current.pending ?? 0) > 0;
    before.current = { key, pending };
    if (!behind || pending !== 0) return;
    for (const part of ["rows", "count", "facets"]) client.invalidateQueries({ queryKey: ["completions", part, key] });
  }, [client, key, pending]);
}

/** How many match. Asked for after the rows, so that it never keeps them waiting. */
export function useCount(filter: Filter, ready: boolean) {
  return useQuery({
    queryKey: ["completions", "count", keyOf(filter)],
    queryFn: ({ signal }) => get<Count>(asked(`${COMPLETIONS}/count`, filter), signal),
    placeholderData: keepPreviousData,
    enabled: ready,
  });
}

/** What the matching completions have in common, with counts. */
export function useFacets(filter: Filter, ready: boolean) {
  return useQuery({
    queryKey: ["completions", "facets", keyOf(filter)],
    queryFn: ({ signal }) => get<Facets>(asked(`${COMPLETIONS}/facets`, filter), signal),
    placeholderData: keepPreviousData,
    enabled: ready,
  });
}

/** For each condition, what there is to choose instead: the facets without it. `ready`: those with it come first. */
export function useOtherValues(filter: Filter, ready: boolean): OtherValues {
  const others = useMemo(() => withoutEach(filter).slice(0, MOST_OTHERS), [filter]);
  const found = useQueries({
    queries: others.map(([, other]) => ({
      queryKey: ["completions", "facets", keyOf(other)],
      queryFn: ({ signal }: { signal: AbortSignal }) => get<Facets>(asked(`${COMPLETIONS}/facets`, other), signal),
      enabled: ready,
    })),
    combine: dataOf,
  });
  return useMemo(() => new Map(others.map(([name], index) => [name, found[index]])), [others, found]);
}

function dataOf(results: { data: Facets | undefined }[]): (Facets | undefined)[] {
  return results.map(({ data }) => data);
}

/** Counts follow what arrives, at most every few seconds: they cost more than rows do. `head`: null until known. */
function useCountAgain(filter: Filter, head: string | null): void {
  const client = useQueryClient();
  const key = keyOf(filter);
  const seen = useRef({ key: "", head: "", at: 0 });
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  useEffect(() => {
    const before = seen.current;
    if (head === null || (before.key === key && before.head === head)) return;
    seen.current = { ...before, key, head };
    clearTimeout(timer.current);
    if (before.key !== key) return;
    timer.current = setTimeout(
      () => {
        seen.current.at = performance.now();
        client.invalidateQueries({ queryKey: ["completions", "count", key] });
        client.invalidateQueries({ queryKey: ["completions", "facets", key] });
      },
      Math.max(0, before.at + COUNTED_AGAIN_MS - performance.now()),
    );
  }, [client, key, head]);
  useEffect(() => () => clearTimeout(timer.current), []);
}
