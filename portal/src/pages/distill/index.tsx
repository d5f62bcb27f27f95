// From stored completions to a job, in six steps: rows, curation, split, student, hyperparameters, quote.

import { type ReactNode, useEffect, useRef } from "react";
import { useText } from "../../i18n";
import { Button, Note, Page, useAddress, Waiting } from "../../ui";
import { useCurated, useRows, useStudents } from "./asking";
import { choicesOf, partsOf, STEPS, type Step, shareOf, stepOf } from "./choices";
import { CurationStep } from "./curation_step";
import styles from "./distill.module.css";
import { HyperparametersStep } from "./hyperparameters_step";
import { firstProblem, type Told } from "./problems";
import { QuoteStep } from "./quote_step";
import { RowsStep } from "./rows_step";
import { SplitStep } from "./split_step";
import type { StepProps } from "./step";
import { StudentStep } from "./student_step";
import { useTeacherAtFirst } from "./teachers";
import { useMethodOfFile } from "./traits";

export default function DistillPage() {
  const t = useText();
  const { address, set, go } = useSteps();
  const step = stepOf(address);
  const given = useGiven(address, set);
  const problem = firstProblem(given, step);
  const blocked = firstProblem(given, "quote");
  const heading = useFocusOnChange(step);
  const at = STEPS.indexOf(step);
  const earlier = blocked && STEPS.indexOf(blocked.step) < at ? blocked : null;
  const before = STEPS[at - 1];
  const next = STEPS[at + 1];
  return (
    <Page title={t("distill.title")} text={t("distill.text")}>
      <StepList here={step} go={go} isOpen={(one) => !blocked || STEPS.indexOf(one) <= STEPS.indexOf(blocked.step)} />
      <section className={styles.step} aria-labelledby="step">
        <h2 id="step" ref={heading} tabIndex={-1}>
          {t(`distill.step_${step}`)}
        </h2>
        {earlier ? <Earlier told={earlier.told} step={earlier.step} go={go} /> : <Body step={step} given={given} />}
      </section>
      <div className={styles.onward}>
        {before && (
          <Button icon="back" onClick={() => go(before)}>
            {t("distill.back")}
          </Button>
        )}
        {next && (
          <>
            <Button kind="primary" disabled={problem !== null} aria-describedby="problem" onClick={() => go(next)}>
              {t("distill.next", { step: t(`distill.step_${next}`) })}
            </Button>
            <span id="problem" role="status" className="quiet">
              {problem && tell(t, problem.told)}
            </span>
          </>
        )}
      </div>
    </Page>
  );
}

/** An address may lead to a step before what it needs is there. */
function Earlier({ told, step, go }: { told: Told; step: Step; go: (step: Step) => void }) {
  const t = useText();
  if (told.key === "distill.counting") return <Waiting text={tell(t, told)} />;
  return (
    <Note
      tone="warn"
      action={<Button onClick={() => go(step)}>{t("distill.go_to", { step: t(`distill.step_${step}`) })}</Button>}
    >
      {tell(t, told)}
    </Note>
  );
}

function Body({ step, given }: { step: Step; given: StepProps }): ReactNode {
  switch (step) {
    case "rows":
      return <RowsStep {...given} rows={given.allRows} />;
    case "curation":
      return <CurationStep {...given} />;
    case "split":
      return <SplitStep {...given} />;
    case "student":
      return <StudentStep {...given} />;
    case "hyperparameters":
      return <HyperparametersStep {...given} />;
    case "quote":
      return <QuoteStep {...given} />;
  }
}

function StepList({ here, go, isOpen }: { here: Step; go: (step: Step) => void; isOpen: (step: Step) => boolean }) {
  const t = useText();
  return (
    <nav aria-label={t("distill.steps")}>
      <ol className={styles.steps}>
        {STEPS.map((step, index) => (
          <li key={step}>
            <button
              type="button"
              className={styles.stepButton}
              aria-current={step === here ? "step" : undefined}
              disabled={!isOpen(step)}
              onClick={() => go(step)}
            >
              <span className={styles.stepNumber}>{index + 1}</span>
              {t(`distill.step_${step}`)}
            </button>
          </li>
        ))}
      </ol>
    </nav>
  );
}

const tell = (t: ReturnType<typeof useText>, told: Told): string => t(told.key, told.values);

/** Who goes on is read the step's name next, and tabs on from there. */
function useFocusOnChange(step: Step) {
  const heading = useRef<HTMLHeadingElement>(null);
  const before = useRef(step);
  useEffect(() => {
    if (before.current !== step) heading.current?.focus({ preventScroll: true });
    before.current = step;
  }, [step]);
  return heading;
}

function useSteps() {
  const { address, set } = useAddress();
  // A step is a place in the history: the browser's own button goes back as well.
  const go = (step: Step) => {
    set({ step }, { asPlace: true });
    window.scrollTo(0, 0);
  };
  return { address, set, go };
}

function useGiven(address: URLSearchParams, set: StepProps["set"]): StepProps {
  const choices = choicesOf(address);
  useTeacherAtFirst(choices.source, address.has("model"), set);
  useMethodOfFile(choices, set);
  const allRows = useRows(choices.source, choices.method);
  const rows = useCurated(choices, allRows);
  const students = useStudents();
  const student = choices.student ?? students.data?.[0]?.name ?? null;
  const usable = rows.usable ?? 0;
  // A file is trained on whole; its validation is a file of its own.
  const share = choices.source.kind === "file" ? 0 : shareOf(choices, usable);
  return { choices, allRows, rows, student, ...partsOf(usable, share), set };
}
