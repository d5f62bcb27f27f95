import type { EvalDefinition } from "../../api/types";
import { useText } from "../../i18n";
import { Badge, Snippet, When } from "../../ui";
import { useCriterionText } from "./criterion_text";
import styles from "./evals.module.css";
import { Source } from "./source";

/** What an eval is: where its items come from, and what answers are graded by, in words and as JSON. */
export function Definition({ definition }: { definition: EvalDefinition }) {
  const t = useText();
  const textOf = useCriterionText();
  const metadata = Object.entries(definition.data_source_config.metadata ?? {});
  return (
    <section className="card stack">
      <h2>{t("evals.definition")}</h2>
      <dl className={styles.facts}>
        <dt>{t("evals.id")}</dt>
        <dd className="mono">{definition.id}</dd>
        <dt>{t("evals.source")}</dt>
        <dd className="row">
          <Source type={definition.data_source_config.type} />
          {metadata.map(([key, value]) => (
            <Badge key={key}>{`${key}=${value}`}</Badge>
          ))}
        </dd>
        <dt>{t("evals.created")}</dt>
        <dd>
          <When seconds={definition.created_at} />
        </dd>
      </dl>
      <h3>{t("evals.criteria")}</h3>
      <ol className={styles.criteria}>
        {definition.testing_criteria.map((criterion) => (
          <li key={criterion.name}>
            <strong className="said">{criterion.name}</strong>
            <span className="quiet said">{textOf(criterion)}</span>
          </li>
        ))}
      </ol>
      <details>
        <summary>{t("evals.as_json")}</summary>
        <Snippet label={t("evals.as_json")} code={JSON.stringify(definition, null, 2)} />
      </details>
    </section>
  );
}
