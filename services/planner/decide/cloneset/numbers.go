package cloneset

// counts of the active Pods, by cases that exclude each other (R19). New Pods are at the update revision, old ones are not.
type counts struct {
	pods, old int
	// preparing: in state PreparingDelete. acting: the rest.
	preparingNew, preparingOld, actingNew, actingOld int
	// Of those acting: named for deletion; or not named and not available.
	specifiedNew, specifiedOld, unavailableNew, unavailableOld int
	// unavailableNow are all that are unavailable, named or not, judged without minReadySeconds (D2).
	unavailableNow int
	// rollsBack: current and update revision differ and the gate CloneSetPartitionRollback is on.
	rollsBack bool
}

// numbers is what scaling and updating may do in one round (R25).
type numbers struct {
	// up Pods are missing, upOld of them of the current revision; upLimit may be created now.
	up, upOld, upLimit int
	// down Pods are too many, downOld of them old.
	down, downOld int
	// surplusOld of those not named for deletion are old, neither kept by the partition nor needed for the replicas.
	surplusOld int
	// deleteReady is how many available Pods may be deleted now.
	deleteReady int
	// update is how many Pods should move to the update revision, or back to the current one when negative.
	update int
	// updateUnavailable is how many Pods may be unavailable for the sake of the update.
	updateUnavailable int
	// unavailable Pods count against the budgets.
	unavailable int
	// surge Pods are wanted beyond the replicas for now.
	surge int
}

// calculate is R20 to R25.
func calculate(c counts, s spec) numbers {
	unavailable := c.preparingNew + c.preparingOld + c.unavailableNew + c.unavailableOld
	specified := c.specifiedNew + c.specifiedOld
	current, currentOld := c.pods, c.old
	if s.exclude {
		current -= c.preparingNew + c.preparingOld
		currentOld -= c.preparingOld
	}

	// R24
	diffOld, diffNew := c.actingOld-s.partition, c.actingNew-(s.replicas-s.partition)
	if !c.rollsBack {
		diffOld, diffNew = max(diffOld, 0), min(diffNew, 0)
	}
	surge, surgeOld := 0, 0
	if s.maxSurge > 0 {
		scaleSurge := min(max(unavailable+specified-s.maxUnavailable, 0), specified)
		scaleOld := max(scaleSurge-c.specifiedNew, 0)
		updateSurge, updateOld := 0, 0
		if diffOld*diffNew < 0 && !s.onDelete {
			// Under OnDelete nothing would ever move an old Pod, and the surge would stay for ever.
			updateSurge = min(abs(diffOld), abs(diffNew))
			if (abs(diffOld) <= abs(diffNew) && diffOld < 0) || (abs(diffNew) < abs(diffOld) && diffNew > 0) {
				updateOld = updateSurge
			}
		}
		surge, surgeOld = updateSurge, updateOld
		if scaleSurge >= updateSurge {
			surge, surgeOld = scaleSurge, scaleOld
		}
		surge = min(s.maxSurge, surge)
		surgeOld = min(surge, surgeOld)
	}

	// R25
	want, wantOld := s.replicas+surge, s.partition+surgeOld
	out := numbers{
		up: max(want-current, 0), upOld: max(wantOld-currentOld, 0),
		down: max(current-specified-want, 0), downOld: max(currentOld-c.specifiedOld-wantOld, 0),
		updateUnavailable: s.maxUnavailable + c.pods - s.replicas, unavailable: unavailable, surge: surge,
	}
	out.surplusOld = max(min(c.actingOld-c.specifiedOld-s.partition, c.pods-s.replicas), 0)
	out.upLimit = min(out.up, max(s.scaleUnavailable-unavailable, 0))
	if specified > 0 || out.down > 0 {
		out.deleteReady = max(s.maxUnavailable+c.pods-s.replicas-c.unavailableNow, 0)
	}
	switch {
	case diffOld*diffNew > 0: // too many or too few of both: that is for scaling
	case abs(diffOld) <= abs(diffNew):
		out.update = diffOld
	default:
		out.update = -diffNew
	}
	return out
}

func abs(n int) int { return max(n, -n) }
