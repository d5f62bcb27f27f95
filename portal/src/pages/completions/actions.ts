// Work on many completions that the server does in the background: what runs, what has ended, and how.

import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useCallback, useEffect, useMemo, useState } from "react";
import { get, post } from "../../api/http";
import type { BulkAction, CompletionRow, Filter, List } from "../../api/types";
import { useText } from "../../i18n";
import { useErrorText, useToast } from "../../ui";
import { matches } from "./filter";

const ACTIONS = "/v1/stillroom/bulk_actions";
const KEY = ["bulk_actions"];
const LOOK_MS = 700;
const UNDO_SECONDS = 8;

/** Which completions: those with these ids, or all that the filter matches. */
export type Target = { ids: string[] } | { filter: Filter };

/** Something this page began. */
interface Begun {
  id: string;
  action: BulkAction["action"];
  target: Target;
  at: number;
  /** The rows that it means, as far as they are known: of a filter's, those that were shown. */
  rows: ReadonlySet<string>;
}

export interface Actions {
  /** At work, or waiting for somebody else's undoing. */
  underWay: BulkAction[];
  /** Whether a row is being deleted: it is not shown any more. */
  isLeaving: (row: CompletionRow) => boolean;
  tag: (target: Target, metadata: Record<string, string | null>) => Promise<void>;
  /** `rows` are the ids of those that are shown. */
  delete: (target: Target, rows: string[]) => Promise<void>;
  cancel: (id: string) => void;
}

export function useActions(shown: Filter): Actions {
  const t = useText();
  const toast = useToast();
  const client = useQueryClient();
  const told = useTold();
  const errorText = useErrorText();
  const [begun, setBegun] = useState<Begun[]>([]);
  const [deleted, setDeleted] = useState<Begun[]>([]);
  const actions = useQuery({
    queryKey: KEY,
    queryFn: ({ signal }) => get<List<BulkAction>>(`${ACTIONS}?limit=20`, signal),
    refetchInterval: (query) => (begun.length || query.state.data?.data.some(isUnderWay) ? LOOK_MS : false),
  });
  const known = actions.data?.data;

  useEffect(() => {
    for (const one of begun) {
      const action = known?.find((other) => other.id === one.id);
      if (!action || isUnderWay(action)) continue;
      setBegun((all) => all.filter((other) => other !== one));
      if (action.action === "delete" && action.status === "succeeded") setDeleted((all) => [...all, one]);
      if (action.status !== "cancelled" || action.done) toast(told(action));
      client.invalidateQueries({ queryKey: ["completions"] });
    }
  }, [begun, known, client, toast, told]);

  const begin = async (body: object, target: Target, rows: string[]) => {
    const action = await post<BulkAction>("/v1/stillroom/completions/bulk", { ...body, ...target });
    const one: Begun = {
      id: action.id,
      action: action.action,
      target,
      at: action.created_at,
      rows: new Set("ids" in target ? target.ids : rows),
    };
    setBegun((all) => [...all, one]);
    client.invalidateQueries({ queryKey: KEY });
    return action;
  };
  const cancel = (id: string) => {
    post<BulkAction>(`${ACTIONS}/${id}/cancel`)
      .catch((error) => toast({ message: errorText(error) }))
      .finally(() => client.invalidateQueries({ queryKey: KEY }));
  };
  return {
    underWay: known?.filter((action) => isShown(action, begun)) ?? [],
    isLeaving: useMemo(() => leaving([...begun, ...deleted], shown), [begun, deleted, shown]),
    tag: async (target, metadata) => {
      await begin({ action: "tag", metadata }, target, []);
    },
    delete: async (target, rows) => {
      const action = await begin({ action: "delete", undo_seconds: UNDO_SECONDS }, target, rows);
      const count = "ids" in target ? target.ids.length : null;
      toast({
        message: count === null ? t("completions.deleting_all") : t("completions.deleting_ids", { count }),
        action: { label: t("common.undo"), run: () => cancel(action.id) },
        seconds: UNDO_SECONDS,
      });
    },
    cancel,
  };
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

/** One that this page began and that can be undone has its own toast. */
function isShown(action: BulkAction, begun: Begun[]): boolean {
  const mine = begun.some((one) => one.id === action.id);
  return action.status === "running" || (action.status === "waiting" && !mine);
}

/** Whether a row is among those that deletions take. */
function leaving(begun: Begun[], shown: Filter): (row: CompletionRow) => boolean {
  const deletions = begun.filter((one) => one.action === "delete");
  return (row) => deletions.some((one) => takes(one, row, shown));
}

function takes({ target, at, rows }: Begun, row: CompletionRow, shown: Filter): boolean {
  if ("ids" in target) return rows.has(row.id);
  const meant = matches(row, target.filter);
  if (meant === false) return false;
  // What was stored in the same second may have come later, and stays. Only the server can search.
  return rows.has(row.id) || (row.created_at < at && (meant ?? target.filter.search === shown.search));
}
