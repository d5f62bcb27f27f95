import { type Translate, useText } from "../../i18n";
import { Badge, useFormat } from "../../ui";
import { type Answer, agreementOf, figuresOf, SIDES, type Side, type Turn } from "./answer";
import { AnswerCard } from "./answer_card";
import type { Names } from "./names";
import styles from "./playground.module.css";
import { Preference } from "./preference";

interface TurnViewProps {
  turn: Turn;
  names: Names;
  /** What was sent before this turn's question on a side. */
  before: (side: Side) => string;
  onAgain: ((side: Side) => void) | undefined;
}

/** A question and its answers beside each other. */
export function TurnView({ turn, names, before, onAgain }: TurnViewProps) {
  const t = useText();
  const sides = SIDES.filter((side) => turn[side]);
  const sent = (side: Side) => before(side) + turn.prompt;
  return (
    <li className={styles.turn}>
      <div className={styles.prompt}>
        <span className="unseen">{t("playground.you")}</span>
        <p className="said">{turn.prompt}</p>
      </div>
      <div className={styles.sides} data-sides={sides.length}>
        {sides.map((side) => {
          const answer = turn[side];
          if (!answer) return null;
          const known = names.all.find((one) => one.name === answer.model);
          return (
            <AnswerCard
              key={side}
              answer={answer}
              sent={sent(side)}
              price={names.prices.get(answer.model)}
              isTeacher={known?.isTeacher ?? false}
              mustLoad={known?.mustLoad ?? false}
              onAgain={onAgain && answer.state === "failed" ? () => onAgain(side) : undefined}
            />
          );
        })}
      </div>
      {isWhole(turn.left) && isWhole(turn.right) && (
        <>
          <Comparison left={turn.left} right={turn.right} names={names} sent={sent} />
          {isChoice(turn.left, turn.right) && before("left") === before("right") && (
            <Preference answers={{ left: turn.left, right: turn.right }} />
          )}
        </>
      )}
    </li>
  );
}

const isWhole = (answer: Answer | null): answer is Answer => answer?.state === "done";

/** Whether one of them can be better: two models' answers that are not the same. */
const isChoice = (left: Answer, right: Answer): boolean => agreementOf(left.text, right.text).kind !== "same";

interface ComparisonProps {
  left: Answer;
  right: Answer;
  names: Names;
  sent: (side: Side) => string;
}

/** Whether both say the same, and what the right one cost beside the left one. */
function Comparison({ left, right, names, sent }: ComparisonProps) {
  const t = useText();
  const { share } = useFormat();
  const agreement = agreementOf(left.text, right.text);
  const same = agreement.kind === "same" || agreement.kind === "same_data";
  const one = figuresOf(left, sent("left"), names.prices.get(left.model)).microusd;
  const other = figuresOf(right, sent("right"), names.prices.get(right.model)).microusd;
  return (
    <p className={styles.comparison}>
      <Badge tone={same ? "good" : "warn"}>{verdict(agreement, t)}</Badge>
      {one && other !== null ? (
        <span className="small quiet said">
          {t("playground.cost_share", { left: left.model, right: right.model, share: share(other / one) })}
        </span>
      ) : null}
    </p>
  );
}

function verdict(agreement: ReturnType<typeof agreementOf>, t: Translate): string {
  if (agreement.kind === "fields") return t("playground.differ_in", { fields: agreement.fields.join(", ") });
  return t(`playground.answers_${agreement.kind}`);
}
