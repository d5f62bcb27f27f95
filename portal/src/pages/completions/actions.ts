// Work on many completions that the server does in the background: what runs, what has ended, and how.

import { useQueries, useQuery, useQueryClient } from "@tanstack/react-query";
import { useCallback, useEffect, useMemo, useRef, useState } from "react";
import { get, post } from "../../api/http";
import type { BulkAction, BulkActionDetail, CompletionRow, Filter, List } from "../../api/types";
import { type Translate, useText } from "../../i18n";
import { useErrorText, useToast } from "../../ui";
import { matches } from "./filter";

const ACTIONS = "/v1/stillroom/bulk_actions";
const KEY = ["bulk_actions"];
const LOOK_MS = 700;
const UNDO_SECONDS = 8;

/** Which completions: those with these ids, or all that the filter matches. */
export type Target = { ids: string[] } | { filter: Filter };

/** Which were begun here: each has a toast with its Undo, which outlives the page. */
const begunHere = new Set<string>();

export interface Actions {
  /** At work, or waiting for an undoing that no toast offers. */
  underWay: BulkAction[];
  /** Whether a row is being deleted: it is not shown any more. */
  isLeaving: (row: CompletionRow) => boolean;
  tag: (target: Target, metadata: Record<string, string | null>) => Promise<void>;
  delete: (target: Target) => Promise<void>;
  cancel: (id: string) => void;
}

export function useActions(shown: Filter): Actions {
  const t = useText();
  const toast = useToast();
  const client = useQueryClient();
  const errorText = useErrorText();
  const actions = useQuery({
    queryKey: KEY,
    queryFn: ({ signal }) => get<List<BulkAction>>(`${ACTIONS}?limit=20`, signal),
    refetchInterval: (query) => (query.state.data?.data.some(isUnderWay) ? LOOK_MS : false),
    refetchOnMount: "always",
    refetchOnWindowFocus: "always",
  });
  const known = actions.data?.data;
  const watched = useEnds(known);

  const begin = async (body: object, target: Target) => {
    const action = await post<BulkAction>("/v1/stillroom/completions/bulk", { ...body, ...target });
    begunHere.add(action.id);
    client.setQueryData<Target>(targetKey(action.id), target);
    client.setQueryData<List<BulkAction>>(KEY, (list) => list && { ...list, data: [action, ...list.data] });
    client.invalidateQueries({ queryKey: KEY });
    return action;
  };
  const cancel = (id: string) => {
    post<BulkAction>(`${ACTIONS}/${id}/cancel`)
      .catch((error) => toast({ message: errorText(error) }))
      .finally(() => client.invalidateQueries({ queryKey: KEY }));
  };
  return {
    underWay: known?.filter(isShown) ?? [],
    isLeaving: useLeaving(known, watched, shown),
    tag: async (target, metadata) => {
      await begin({ action: "tag", metadata }, target);
    },
    delete: async (target) => {
      const action = await begin({ action: "delete", undo_seconds: UNDO_SECONDS }, target);
      toast({
        message: deletingText(t, action),
        action: { label: t("common.undo"), run: () => cancel(action.id) },
        seconds: UNDO_SECONDS,
      });
    },
    cancel,
  };
}

/** What a deletion that waits is about to do. */
export function deletingText(t: Translate, { matched }: BulkAction): string {
  return matched === null ? t("completions.deleting_all") : t("completions.deleting_ids", { count: matched });
}

/** Tells how each action has ended that was seen under way, and has the lists read again. Gives those that are
 * under way, or ended while the lists still have the rows of before. */
function useEnds(known: BulkAction[] | undefined): ReadonlySet<string> {
  const toast = useToast();
  const client = useQueryClient();
  const told = useTold();
  const [watched, setWatched] = useState<ReadonlySet<string>>(new Set());
  const ended = useRef(new Set<string>());
  useEffect(() => {
    const fresh = known?.filter((action) => isUnderWay(action) && !watched.has(action.id)) ?? [];
    if (fresh.length) setWatched((all) => new Set([...all, ...fresh.map((action) => action.id)]));
    for (const action of known ?? []) {
      if (isUnderWay(action) || !watched.has(action.id) || ended.current.has(action.id)) continue;
      ended.current.add(action.id);
      if (begunHere.has(action.id) && (action.status !== "cancelled" || action.done)) toast(told(action));
      client
        .invalidateQueries({ queryKey: ["completions"] })
        .finally(() => setWatched((all) => new Set([...all].filter((id) => id !== action.id))));
    }
  }, [known, watched, client, toast, told]);
  return watched;
}

/** Whether a row is among those that deletions take, be they begun here or elsewhere. */
function useLeaving(
  known: BulkAction[] | undefined,
  watched: ReadonlySet<string>,
  shown: Filter,
): (row: CompletionRow) => boolean {
  const deletions = (known ?? []).filter(
    (one) => one.action === "delete" && (isUnderWay(one) || (one.status === "succeeded" && watched.has(one.id))),
  );
  const targets = useQueries({
    queries: deletions.map(({ id }) => ({
      queryKey: targetKey(id),
      queryFn: ({ signal }: { signal: AbortSignal }) => targetOf(id, signal),
      staleTime: Number.POSITIVE_INFINITY,
    })),
    combine: allKnown,
  });
  return useMemo(() => {
    const takers = targets.map((target) => taker(target, shown));
    return (row) => takers.some((takes) => takes(row));
  }, [targets, shown]);
}

/** Not below the list's key: what an action is about does not change, and may be long. */
const targetKey = (id: string) => ["bulk_action_targets", id];

async function targetOf(id: string, signal: AbortSignal): Promise<Target> {
  const { filter, ids } = await get<BulkActionDetail>(`${ACTIONS}/${id}`, signal);
  return ids ? { ids } : { filter: filter ?? {} };
}

function allKnown(results: { data: Target | undefined }[]): Target[] {
  return results.flatMap(({ data }) => data ?? []);
}

function taker(target: Target, shown: Filter): (row: CompletionRow) => boolean {
  if ("ids" in target) {
    const ids = new Set(target.ids);
    return (row) => ids.has(row.id);
  }
  // Only the server can search: what is shown by the same words is found by them.
  const found = target.filter.search === shown.search;
  return (row) => matches(row, target.filter) ?? found;
}

/** Changes one completion's metadata, and comes back when it is done; null takes a key away. */
export async function changeMetadata(id: string, changes: Record<string, string | null>): Promise<void> {
  const takesAway = Object.values(changes).includes(null);
  if (!takesAway) {
    await post(`/v1/chat/completions/${id}`, { metadata: changes });
    return;
  }
  // OpenAI's own update can add pairs or clear all of them; only a bulk action takes one away.
  let action = await post<BulkAction>("/v1/stillroom/completions/bulk", {
    action: "tag",
    ids: [id],
    metadata: changes,
  });
  while (isUnderWay(action)) {
    await new Promise((resolve) => setTimeout(resolve, 150));
    action = await get<BulkAction>(`${ACTIONS}/${action.id}`);
  }
  if (action.status !== "succeeded") throw new Error(action.error?.message ?? action.status);
}

/** What a finished action has to tell: how many, how many not, and why. */
function useTold() {
  const t = useText();
  return useCallback(
    (action: BulkAction) => {
      const count = action.done;
      const parts = [
        action.action === "tag" ? t("completions.tagged", { count }) : t("completions.removed", { count }),
      ];
      const { not_found: gone = 0, too_many_pairs: full = 0 } = action.skipped_because ?? {};
      if (gone) parts.push(t("completions.skipped_gone", { count: gone }));
      if (full) parts.push(t("completions.skipped_full", { count: full }));
      if (action.error) parts.push(action.error.message);
      return { message: parts.join(" "), seconds: action.skipped || action.error ? 20 : 6 };
    },
    [t],
  );
}

function isUnderWay(action: BulkAction): boolean {
  return action.status === "waiting" || action.status === "running";
}

/** One that was begun here and can be undone has its own toast. */
function isShown(action: BulkAction): boolean {
  return action.status === "running" || (action.status === "waiting" && !begunHere.has(action.id));
}
