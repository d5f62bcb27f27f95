import type { ReactNode } from "react";
import type { CompletionDetail } from "../../../api/types";
import { useText } from "../../../i18n";
import { Badge, CopyButton, useFormat } from "../../../ui";
import styles from "./panel.module.css";

/** When, by whom, how much, how long. */
export function Figures({ detail }: { detail: CompletionDetail }) {
  const t = useText();
  const format = useFormat();
  const answeredBy = otherName(detail);
  return (
    <dl className={styles.figures}>
      <Figure name={t("completions.model")}>
        <bdi>{detail.model}</bdi>
      </Figure>
      {answeredBy !== null && (
        <Figure name={t("completions.answered_by")}>
          <bdi>{answeredBy}</bdi>
        </Figure>
      )}
      <Figure name={t("completions.time")}>
        <time dateTime={new Date(detail.created_at * 1000).toISOString()} title={format.ago(detail.created_at)}>
          {format.time(detail.created_at)}
        </time>
      </Figure>
      <Figure name={t("completions.tokens")}>
        {t("completions.tokens_in_out", { prompt: detail.prompt_tokens, completion: detail.completion_tokens })}
      </Figure>
      {detail.soft_labels && (
        <Figure name={t("completions.soft_labels")}>
          {t("completions.soft_labels_of", {
            tokens: detail.soft_labels.tokens,
            most: detail.soft_labels.alternatives,
          })}
        </Figure>
      )}
      <Figure name={t("completions.price")}>{format.money(detail.cost_microusd)}</Figure>
      <Figure name={t("completions.latency")}>{format.duration(detail.latency_ms)}</Figure>
      <Figure name={t("completions.first_token")}>{format.duration(detail.first_token_ms)}</Figure>
      <Figure name={t("completions.finish_reason")}>
        {detail.status === "incomplete" ? (
          <Badge tone="warn">{t("completions.status_incomplete")}</Badge>
        ) : (
          <bdi>{detail.finish_reason ?? "–"}</bdi>
        )}
      </Figure>
      <div className={styles.figure} data-wide="">
        <dt>{t("completions.id")}</dt>
        <dd className={styles.id}>
          <span className="mono said">{detail.id}</span>
          <CopyButton text={detail.id} label={t("completions.copy_id")} />
        </dd>
      </div>
    </dl>
  );
}

/** A deployment may stand in its teacher's name; the answer then says who gave it. */
function otherName({ model, response }: CompletionDetail): string | null {
  return typeof response.model === "string" && response.model && response.model !== model ? response.model : null;
}

function Figure({ name, children }: { name: string; children: ReactNode }) {
  return (
    <div className={styles.figure}>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}
