// What stored completions were asked with: to ask the same again, of anybody.

import { get, path } from "../../api/http";
import { lastQuestion, wordsOf } from "../../api/messages";
import type { CompletionDetail, CompletionRow, List } from "../../api/types";

const STORED = "/v1/stillroom/completions";
const LOOKED_AT = 5;

/** What a completion was told to be, and asked last. */
export interface Question {
  system: string;
  prompt: string;
}

export async function questionOf(id: string, signal?: AbortSignal): Promise<Question> {
  const { request } = await get<CompletionDetail>(`${STORED}/${encodeURIComponent(id)}`, signal);
  const system = request.messages.find((message) => message.role === "system" || message.role === "developer");
  return { system: wordsOf(system), prompt: wordsOf(lastQuestion(request.messages)) };
}

/** The newest stored question of the first of these models that has one with a system prompt, else with none. */
export async function newestQuestion(models: string[]): Promise<Question | null> {
  let plain: Question | null = null;
  for (const model of models) {
    const { data } = await get<List<CompletionRow>>(path(STORED, { model, limit: LOOKED_AT }));
    for (const { id } of data) {
      const found = await questionOf(id);
      if (found.system) return found;
      plain ??= found;
    }
  }
  return plain;
}
