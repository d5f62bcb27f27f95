import { useQuery } from "@tanstack/react-query";
import { get } from "../../api/http";
import { said } from "../../api/messages";
import type { EvalRun, GraderResult, OutputItem } from "../../api/types";
import { useText } from "../../i18n";
import { Badge, ErrorNote, Note, Panel, Snippet, useFormat, Waiting } from "../../ui";
import { runPath } from "./asking";
import styles from "./evals.module.css";
import { ItemState } from "./item_state";
import { questionOf } from "./question_of";
import { Text } from "./text";

interface ItemPanelProps {
  run: EvalRun;
  id: string;
  /** The item, when it is among those listed already. */
  known: OutputItem | undefined;
  onClose: () => void;
}

/** One item: what was asked, both answers, and what every grader said. */
export function ItemPanel({ run, id, known, onClose }: ItemPanelProps) {
  const t = useText();
  const item = useQuery({
    queryKey: ["eval-item", run.eval_id, run.id, id],
    queryFn: ({ signal }) =>
      get<OutputItem>(`${runPath(run.eval_id, run.id)}/output_items/${encodeURIComponent(id)}`, signal),
    staleTime: Number.POSITIVE_INFINITY,
    ...(known ? { initialData: known } : {}),
  });
  const number = item.data ? item.data.datasource_item_id + 1 : null;
  return (
    <Panel title={number === null ? t("evals.item") : t("evals.item_number", { number })} onClose={onClose}>
      {item.error && !item.data && <ErrorNote error={item.error} onRetry={() => item.refetch()} />}
      {item.isPending && <Waiting />}
      {item.data && <Shown item={item.data} run={run} />}
    </Panel>
  );
}

function Shown({ item, run }: { item: OutputItem; run: EvalRun }) {
  const t = useText();
  const asked = questionOf(item);
  const { output_text: stored } = item.datasource_item;
  return (
    <>
      <div className="row">
        <ItemState status={item.status} />
        {Object.entries(item.datasource_item.metadata ?? {}).map(([key, value]) => (
          <Badge key={key}>{`${key}=${value}`}</Badge>
        ))}
      </div>
      {item.sample.error && (
        <Note tone="bad">
          <span className="said">{item.sample.error.message}</span>
        </Note>
      )}
      {asked && <Text title={t("evals.question")} text={asked} />}
      {stored !== undefined && <Text title={t("evals.teacher_answer")} text={stored} tone="teacher" />}
      <Text title={run.model || t("evals.answer")} text={said(item.sample.output[0])} tone="student" />
      <h3>{t("evals.grades")}</h3>
      <ul className={styles.grades}>
        {item.results.map((result) => (
          <Grade key={result.name} result={result} />
        ))}
      </ul>
      {item.results.length === 0 && <p className="quiet">{t("evals.ungraded")}</p>}
      <details>
        <summary>{t("evals.as_json")}</summary>
        <Snippet label={t("evals.as_json")} code={JSON.stringify(item, null, 2)} />
      </details>
    </>
  );
}

function Grade({ result }: { result: GraderResult }) {
  const t = useText();
  const { number } = useFormat();
  return (
    <li>
      <span className="spread">
        <strong className="said">{result.name}</strong>
        <span className="row">
          <span className="number">{t("evals.score", { score: number(result.score) })}</span>
          <ItemState status={result.error ? "error" : result.passed ? "pass" : "fail"} />
        </span>
      </span>
      {result.error && <span className="said small quiet">{result.error.message}</span>}
      {result.sample && (
        <details>
          <summary>{t("evals.judge_said")}</summary>
          <Snippet label={t("evals.judge_said")} code={JSON.stringify(result.sample, null, 2)} />
        </details>
      )}
    </li>
  );
}
