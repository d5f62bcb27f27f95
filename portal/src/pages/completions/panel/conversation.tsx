// A completion as the chat it was: what was sent, and what was answered. Both are kept as they came, so any part
// may have another shape than it should; it is shown as the JSON that it is.

import type { ChatMessage, CompletionDetail, ContentPart, ToolCall } from "../../../api/types";
import { useText } from "../../../i18n";
import { Badge, Note } from "../../../ui";
import { useRoleName } from "../roles";
import { LongText } from "./long_text";
import styles from "./panel.module.css";

/** Reasons that leave an answer unfinished. */
const CUT = new Set(["length", "content_filter"]);

export function Conversation({ detail }: { detail: CompletionDetail }) {
  const t = useText();
  const sent = Array.isArray(detail.request.messages) ? detail.request.messages : [];
  const choices = Array.isArray(detail.response.choices) ? detail.response.choices : [];
  return (
    <>
      <ol className={styles.talk} aria-label={t("completions.view_conversation")}>
        {sent.map((message, index) => (
          // biome-ignore lint/suspicious/noArrayIndexKey: a stored conversation does not change
          <Message key={index} message={message} />
        ))}
        {choices.map((choice, index) => (
          <Message
            // biome-ignore lint/suspicious/noArrayIndexKey: nor do its answers
            key={`answer-${index}`}
            message={{ role: "assistant", ...choice.message }}
            answer={
              choices.length > 1 ? t("completions.answer_number", { number: index + 1 }) : t("completions.answer")
            }
            finish={choice.finish_reason}
          />
        ))}
      </ol>
      {detail.status === "incomplete" && <Note tone="warn">{t("completions.incomplete_text")}</Note>}
    </>
  );
}

interface MessageProps {
  message: ChatMessage;
  /** Set when it is what was answered. */
  answer?: string;
  finish?: string | undefined;
}

function Message({ message, answer, finish }: MessageProps) {
  const t = useText();
  const roleName = useRoleName();
  return (
    <li className={styles.message} data-role={message.role} data-answer={answer !== undefined}>
      <div className={styles.role}>
        <strong className="said">{roleName(message.role)}</strong>
        {message.name && <bdi className="quiet">{spelled(message.name)}</bdi>}
        {message.tool_call_id && <bdi className="quiet mono small">{spelled(message.tool_call_id)}</bdi>}
        {answer && <Badge tone="good">{answer}</Badge>}
        {finish && finish !== "stop" && <Badge tone={CUT.has(finish) ? "warn" : "plain"}>{spelled(finish)}</Badge>}
      </div>
      <Content content={message.content} />
      {message.refusal && (
        <Note tone="warn">
          <strong>{t("completions.refusal")}</strong> <LongText text={spelled(message.refusal)} />
        </Note>
      )}
      {listed(message.tool_calls).map((call, index) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: the calls of a stored message keep their places
        <Call key={index} call={call} />
      ))}
    </li>
  );
}

function Content({ content }: { content: ChatMessage["content"] }) {
  if (content == null || content === "") return null;
  if (typeof content === "string") return <LongText text={content} />;
  if (!Array.isArray(content)) return <LongText code text={JSON.stringify(content, null, 2)} />;
  // biome-ignore lint/suspicious/noArrayIndexKey: the parts of a stored message keep their places
  return content.map((part, index) => <Part key={index} part={part} />);
}

/** A part of a message. What lies elsewhere, such as an image's address, is named and never fetched. */
function Part({ part }: { part: ContentPart }) {
  const t = useText();
  if (typeof part?.text === "string") return <LongText text={part.text} />;
  if (typeof part?.refusal === "string") return <LongText text={part.refusal} />;
  const address = addressOf(part);
  return (
    <div className={styles.placeholder}>
      <strong>
        {part?.type === "image_url" ? t("completions.image") : t("completions.part", { type: String(part?.type) })}
      </strong>
      {address !== null ? (
        <span className="said small">{shortened(address)}</span>
      ) : (
        <LongText code text={JSON.stringify(part, null, 2)} />
      )}
    </div>
  );
}

function Call({ call }: { call: ToolCall }) {
  const t = useText();
  return (
    <div className={styles.call}>
      <div className={styles.role}>
        <Badge>{t("completions.tool_call")}</Badge>
        <bdi className="mono">{spelled(call?.function?.name ?? call?.type ?? "")}</bdi>
        {call?.id && <bdi className="quiet mono small">{spelled(call.id)}</bdi>}
      </div>
      <LongText code text={pretty(spelled(isObject(call?.function) ? (call.function?.arguments ?? "") : call))} />
    </div>
  );
}

/** Text as it is, anything else as JSON. */
function spelled(value: unknown): string {
  return typeof value === "string" ? value : JSON.stringify(value, null, 2);
}

/** What should be a list and is none, as one of a single entry. */
function listed<T>(value: T[] | null | undefined): T[] {
  if (value == null) return [];
  return Array.isArray(value) ? value : [value];
}

function isObject(value: unknown): boolean {
  return typeof value === "object" && value !== null;
}

function addressOf(part: ContentPart): string | null {
  const image = part?.image_url as { url?: unknown } | undefined;
  return typeof image?.url === "string" ? image.url : null;
}

function shortened(address: string): string {
  return address.length > 200 ? `${address.slice(0, 80)}…` : address;
}

/** Arguments are JSON as a model wrote it: indented where they are sound, else as they are. */
function pretty(text: string): string {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
