import { useState } from "react";
import { Link } from "wouter";
import type { Disagreement, ReportSide } from "../../api/types";
import { useText } from "../../i18n";
import { Badge, Button } from "../../ui";
import styles from "./evals.module.css";
import { Text } from "./text";

const FIRST = 3;

/** The items on which a model differs most from the teacher, both answers side by side. */
export function Disagreements({ side }: { side: ReportSide }) {
  const t = useText();
  const [all, setAll] = useState(false);
  return (
    <section className="stack">
      <h2 className="said">{t("evals.worst", { name: side.name })}</h2>
      {(all ? side.worst : side.worst.slice(0, FIRST)).map((one, at) => (
        <Case key={one.completion_id ?? at} one={one} name={side.name} />
      ))}
      {!all && side.worst.length > FIRST && (
        <div>
          <Button onClick={() => setAll(true)}>{t("evals.worst_all", { count: side.worst.length })}</Button>
        </div>
      )}
    </section>
  );
}

function Case({ one, name }: { one: Disagreement; name: string }) {
  const t = useText();
  return (
    <article className={`card ${styles.case}`}>
      <div className="spread">
        <span className="row">
          {Object.entries(one.metadata).map(([key, value]) => (
            <Badge key={key}>{`${key}=${value}`}</Badge>
          ))}
        </span>
        <span className="row small">
          <span className="quiet number">{t("evals.score", { score: one.score.toFixed(2) })}</span>
          {one.completion_id && (
            <Link href={`/completions?open=${encodeURIComponent(one.completion_id)}`}>{t("evals.completion")}</Link>
          )}
        </span>
      </div>
      <Text title={t("evals.question")} text={one.prompt} />
      <div className={styles.answers}>
        <Text title={t("evals.teacher_answer")} text={one.teacher} tone="teacher" />
        <Text title={name} text={one.student} tone="student" />
      </div>
    </article>
  );
}
