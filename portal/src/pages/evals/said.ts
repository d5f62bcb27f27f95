import type { ChatMessage } from "../../api/types";

/** A message as text: what it says, what it refuses, and the tools it calls. */
export function said(message: ChatMessage | undefined): string {
  if (!message) return "";
  const { content } = message;
  const text =
    typeof content === "string" ? content : (content ?? []).map((part) => part.text ?? `[${part.type}]`).join("\n");
  const calls = (message.tool_calls ?? []).map((call) => `${call.function?.name}(${call.function?.arguments ?? ""})`);
  return [text, message.refusal ?? "", ...calls].filter(Boolean).join("\n");
}

/** What was asked last. */
export function question(input: ChatMessage[] | string | undefined): string {
  if (typeof input === "string") return input;
  return said(input?.findLast((message) => message.role === "user"));
}
