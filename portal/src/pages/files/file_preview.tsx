import { useQuery } from "@tanstack/react-query";
import { get } from "../../api/http";
import { messagesOf, said } from "../../api/messages";
import type { ChatMessage, StoredFile } from "../../api/types";
import { useText } from "../../i18n";
import { ErrorNote, Note, Panel, useFormat, Waiting } from "../../ui";
import { useRoleName } from "../completions/roles";
import { type Beginning, beginningOf } from "./beginning";
import { DownloadLink, PurposeBadge } from "./file_table";
import styles from "./files.module.css";

const MOST_LINES = 20;

/** A file's first lines: conversations as such, everything else as it is. */
export function FilePreview({ id, onClose }: { id: string; onClose: () => void }) {
  const { bytes, time } = useFormat();
  const file = useQuery({
    queryKey: ["files", "one", id],
    queryFn: ({ signal }) => get<StoredFile>(`/v1/files/${encodeURIComponent(id)}`, signal),
  });
  const beginning = useQuery({
    queryKey: ["files", "beginning", id],
    queryFn: ({ signal }) => beginningOf(id, signal),
    enabled: file.isSuccess,
    staleTime: Number.POSITIVE_INFINITY,
  });
  const error = file.error ?? beginning.error;
  return (
    <Panel title={<span className="said">{file.data?.filename ?? id}</span>} onClose={onClose}>
      {file.data && (
        <div className="spread">
          <span className="row small quiet">
            <PurposeBadge purpose={file.data.purpose} />
            <span>{bytes(file.data.bytes)}</span>
            <span>{time(file.data.created_at)}</span>
          </span>
          <DownloadLink file={file.data} />
        </div>
      )}
      {file.data?.status === "error" && (
        <Note tone="bad">
          <span className="said">{file.data.status_details}</span>
        </Note>
      )}
      {error && <ErrorNote error={error} onRetry={() => (file.error ? file.refetch() : beginning.refetch())} />}
      {!error && !beginning.data && <Waiting />}
      {beginning.data && <Lines beginning={beginning.data} />}
    </Panel>
  );
}

function Lines({ beginning }: { beginning: Beginning }) {
  const t = useText();
  const shown = beginning.lines.slice(0, MOST_LINES);
  const goesOn = beginning.isPart || beginning.lines.length > MOST_LINES;
  if (!shown.some(Boolean)) return <p className="quiet">{t("files.nothing_in_it")}</p>;
  return (
    <>
      <h3>
        {goesOn ? t("files.first_lines", { count: shown.length }) : t("files.all_lines", { count: shown.length })}
      </h3>
      <ol className={styles.lines}>
        {shown.map((line, at) => (
          // biome-ignore lint/suspicious/noArrayIndexKey: lines stand where they are
          <li key={at}>
            <Line number={at + 1} text={line} />
          </li>
        ))}
      </ol>
    </>
  );
}

function Line({ number, text }: { number: number; text: string }) {
  const t = useText();
  const messages = messagesOf(text);
  return (
    <div className={styles.line}>
      <span className={styles.lineNumber} title={t("files.line", { number })}>
        {number}
      </span>
      {messages ? <Conversation messages={messages} /> : <pre className={`said ${styles.raw}`}>{text}</pre>}
    </div>
  );
}

function Conversation({ messages }: { messages: ChatMessage[] }) {
  return (
    <div className={styles.messages}>
      {messages.map((message, at) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: messages stand where they are
        <Message key={at} message={message} />
      ))}
    </div>
  );
}

/** The prompt that every line begins with is folded away: the lines differ below it. */
function Message({ message }: { message: ChatMessage }) {
  const roleName = useRoleName();
  const isFolded = message.role === "system" || message.role === "developer";
  const words = <p className="said">{said(message)}</p>;
  if (isFolded)
    return (
      <details>
        <summary className={styles.role}>{roleName(message.role)}</summary>
        {words}
      </details>
    );
  return (
    <div data-role={message.role}>
      <span className={styles.role}>{roleName(message.role)}</span>
      {words}
    </div>
  );
}
