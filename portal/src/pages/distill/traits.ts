// What a look at the first rows tells of the others: whether they are preference pairs, which system prompt they begin
// with, and whether they have soft labels.

import { useQuery } from "@tanstack/react-query";
import { useEffect } from "react";
import { get } from "../../api/http";
import { messagesOf, wordsOf } from "../../api/messages";
import type { ChatMessage, CompletionDetail, CompletionRow, List } from "../../api/types";
import type { AddressChanges } from "../../ui";
import { asked, COMPLETIONS } from "../completions/filter";
import { beginningOf } from "../files/beginning";
import type { Choices, Source } from "./choices";
import { pairOf } from "./examples";

export interface Traits {
  arePairs: boolean;
  /** The system prompt that all rows looked at begin with; null when there is none, or they differ. */
  prompt: string | null;
  haveSoftLabels: boolean;
}

interface Row {
  isPair: boolean;
  prompt: string | null;
  hasSoftLabels: boolean;
}

const LOOKED_AT = 3;
const ENOUGH_BYTES = 400_000;
const PROMPT_ROLES = ["system", "developer"];

export function useTraits(source: Source) {
  return useQuery({
    queryKey: ["traits", source],
    queryFn: async ({ signal }) => traitsOf(await rowsOf(source, signal)),
    enabled: source.kind !== "file" || source.file !== "",
  });
}

/** A file says itself what its rows are, and so which method learns from them. */
export function useMethodOfFile({ source, method }: Choices, set: (changes: AddressChanges) => void): void {
  const { data } = useTraits(source);
  const arePairs = data?.arePairs ?? false;
  const isOther = source.kind === "file" && data !== undefined && arePairs !== (method === "dpo");
  // biome-ignore lint/correctness/useExhaustiveDependencies: `set` is another function each time
  useEffect(() => {
    if (isOther) set({ method: arePairs ? "dpo" : null });
  }, [isOther, arePairs]);
}

function traitsOf(rows: Row[]): Traits {
  const [first] = rows;
  return {
    arePairs: first?.isPair ?? false,
    prompt: rows.every((row) => row.prompt === first?.prompt) ? (first?.prompt ?? null) : null,
    haveSoftLabels: rows.some((row) => row.hasSoftLabels),
  };
}

async function rowsOf(source: Source, signal: AbortSignal): Promise<Row[]> {
  if (source.kind === "file") {
    const { lines } = await beginningOf(source.file, signal, ENOUGH_BYTES);
    return lines.flatMap((line) => rowOfLine(line) ?? []);
  }
  const ids = source.kind === "ids" ? (source.ids ?? []) : await firstIds(source, signal);
  const whole = ids
    .slice(0, LOOKED_AT)
    .map((id) => get<CompletionDetail>(`${COMPLETIONS}/${encodeURIComponent(id)}`, signal));
  return (await Promise.all(whole)).map(({ request, soft_labels: labels }) => ({
    isPair: false,
    prompt: promptOf(request.messages),
    hasSoftLabels: Boolean(labels),
  }));
}

async function firstIds({ filter }: Source & { kind: "filter" }, signal: AbortSignal): Promise<string[]> {
  const found = await get<List<CompletionRow>>(
    asked(COMPLETIONS, { ...filter, status: "completed" }, { limit: LOOKED_AT }),
    signal,
  );
  return found.data.map((row) => row.id);
}

function rowOfLine(line: string): Row | null {
  const messages = messagesOf(line);
  const pair = messages ? null : pairOf(line);
  const asked = messages ?? pair?.messages;
  if (!asked) return null;
  const hasSoftLabels = messages?.some((message) => "logprobs" in message && message.logprobs) ?? false;
  return { isPair: pair !== null, prompt: promptOf(asked), hasSoftLabels };
}

function promptOf([first]: ChatMessage[]): string | null {
  return first && PROMPT_ROLES.includes(first.role) ? wordsOf(first) || null : null;
}
