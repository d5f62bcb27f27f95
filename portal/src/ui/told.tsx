// What a page says when it has nothing, not yet anything, or something went wrong; and code to paste.

import { type MouseEvent, type ReactNode, useState } from "react";
import { ApiError } from "../api/http";
import { useText } from "../i18n";
import { Button } from "./button";
import { copy } from "./clipboard";

export type Tone = "plain" | "good" | "warn" | "bad" | "teacher" | "student";

export function Badge({ tone = "plain", children }: { tone?: Tone; children: ReactNode }) {
  return (
    <span className="badge" data-tone={tone}>
      {children}
    </span>
  );
}

export function Note({ tone = "plain", children, action }: { tone?: Tone; children: ReactNode; action?: ReactNode }) {
  return (
    <div className="note" data-tone={tone} role={tone === "bad" ? "alert" : undefined}>
      <div>{children}</div>
      {action}
    </div>
  );
}

/** What the server said was wrong, in its own words, and a button to try again where that may help. */
export function ErrorNote({ error, onRetry }: { error: unknown; onRetry?: () => void }) {
  const t = useText();
  const isLasting = error instanceof ApiError && error.lasting;
  return (
    <Note tone="bad" action={onRetry && !isLasting && <Button onClick={onRetry}>{t("common.try_again")}</Button>}>
      <span className="said">{useErrorText()(error)}</span>
    </Note>
  );
}

/** An error as one text for the reader. */
export function useErrorText(): (error: unknown) => string {
  const t = useText();
  return (error) => {
    if (error instanceof ApiError) return error.status === 0 ? t("common.unreachable") : error.message;
    return error instanceof Error ? error.message : String(error);
  };
}

export function Waiting({ text }: { text?: string }) {
  const t = useText();
  return (
    <div className="waiting" role="status">
      <span className="spinner" />
      {text ?? t("common.loading")}
    </div>
  );
}

/** Nothing is here yet: what to do next, best with something to paste. */
export function Empty({ title, children }: { title: string; children?: ReactNode }) {
  return (
    <div className="empty">
      <h2>{title}</h2>
      {children}
    </div>
  );
}

/** Code that works when pasted. */
export function Snippet({ code, label }: { code: string; label: string }) {
  return (
    <div className="snippet">
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard */}
      <section className="code" tabIndex={0} aria-label={label}>
        <pre>
          <code>{code}</code>
        </pre>
      </section>
      <CopyButton text={code} />
    </div>
  );
}

export function CopyButton({ text, label }: { text: string; label?: string }) {
  const t = useText();
  const [copied, setCopied] = useState(false);
  const take = async (event: MouseEvent<HTMLElement>) => {
    await copy(text, event.currentTarget);
    setCopied(true);
    setTimeout(() => setCopied(false), 1500);
  };
  return (
    <Button icon={copied ? "check" : "copy"} onClick={take}>
      {copied ? t("common.copied") : (label ?? t("common.copy"))}
    </Button>
  );
}

export function Stat({ label, value, more }: { label: string; value: ReactNode; more?: ReactNode }) {
  return (
    <div className="stat">
      <span className="stat-label">{label}</span>
      <span className="stat-value">{value}</span>
      {more && <span className="small quiet">{more}</span>}
    </div>
  );
}

/** `done` of `total`; without a total, work of unknown length. */
export function Progress({ done, total, label }: { done: number; total: number | null; label: string }) {
  return (
    <span className="progress">
      <progress aria-label={label} {...(total ? { value: done, max: total } : {})} />
      {total ? <span className="small number">{Math.floor((100 * done) / total)}%</span> : null}
    </span>
  );
}
